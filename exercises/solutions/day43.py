"""Solutions of day 43."""

import json
from collections import Counter
from typing import Any


def render_chat(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    prompt = ""
    for index, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role not in ("system", "user", "assistant") or (role == "system" and index > 0):
            raise ValueError(f"message {index} has the role {role}")
        while "<|im_start|>" in content or "<|im_end|>" in content:
            content = content.replace("<|im_start|>", "").replace("<|im_end|>", "")
        prompt += f"<|im_start|>{role}\n{content}<|im_end|>\n"
    return prompt + ("<|im_start|>assistant\n" if add_generation_prompt else "")


def choose_examples(similarity: list[float], labels: list[str], number: int) -> list[int]:
    order = sorted(range(len(labels)), key=lambda index: (-similarity[index], index))
    remaining = {label: [i for i in order if labels[i] == label] for label in sorted(set(labels))}
    chosen: list[int] = []
    while len(chosen) < min(number, len(labels)):
        for indices in remaining.values():
            if indices and len(chosen) < number:
                chosen.append(indices.pop(0))
    return sorted(chosen, key=lambda index: (similarity[index], index))


def majority_answer(answers: list[str | None]) -> tuple[str | None, float]:
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return None, 0.0
    best, number = counts.most_common(1)[0]
    return best, number / len(answers)


def parse_answer(text: str, keys: dict[str, type]) -> dict[str, Any]:
    start = text.find("{")
    while start >= 0:
        try:
            found, _ = json.JSONDecoder().raw_decode(text, start)
            break
        except json.JSONDecodeError:
            start = text.find("{", start + 1)
    else:
        raise ValueError("the answer contains no JSON object")
    for key, kind in keys.items():
        value = found.get(key)
        right = isinstance(value, (int, float) if kind is float else kind)
        if not right or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{key} is missing or not of type {kind.__name__}")
    return dict(found)
