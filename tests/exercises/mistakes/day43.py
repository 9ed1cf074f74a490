"""Typical wrong solutions of day 43."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "render_chat",
        'while "<|im_start|>" in content',
        'if "<|im_start|>" in content',
        "may form another",
    ),
    Mistake(
        "render_chat",
        'content = content.replace("<|im_start|>", "").replace("<|im_end|>", "")',
        "break",
        "remove the markers",
    ),
    Mistake(
        "render_chat",
        '"<|im_start|>assistant\\n" if add_generation_prompt else ""',
        '""',
        "where the answer begins",
    ),
    Mistake(
        "choose_examples",
        "(similarity[index], index)",
        "(-similarity[index], index)",
        "is the last one",
    ),
    Mistake(
        "majority_answer", "number / len(answers)", "number / counts.total()", "count for the share"
    ),
    Mistake("majority_answer", " if answer is not None", "", "None"),
    Mistake("parse_answer", 'start = text.find("{", start + 1)', "start = -1", "try the next one"),
    Mistake(
        "parse_answer",
        "not right or (isinstance(value, bool) and kind is not bool)",
        "not right",
        "subclass of int",
    ),
    Mistake(
        "parse_answer",
        "json.JSONDecoder().raw_decode(text, start)",
        'json.loads(text[start : text.find("}", start) + 1]), 0',
        "need not end the object",
    ),
]
