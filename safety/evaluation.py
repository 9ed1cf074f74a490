"""The parts of a safety report on a chat model: refusals, robustness, bias, judgments."""

import random
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import yaml

from modules import Classifier
from modules.inference.answers import answer
from modules.language_model import LanguageModel
from safety.guard import HARMFUL, THRESHOLD, harm_probabilities
from safety.guard_data import Prompt
from safety.judge import judge
from safety.refusals import is_refusal
from safety.reliability import cohens_kappa, reliability
from safety.rewriting import rules_of

CONTEXTUAL = "harmbench_contextual"  # its prompts are too long to be rewritten


class Settings(NamedTuple):
    """Options of the evaluation."""

    limit: int
    max_new_tokens: int
    batch_size: int


def evaluate(
    model: LanguageModel, guard: Classifier, prompts: Sequence[Prompt], settings: Settings
) -> dict[str, Any]:
    """Return all parts of the report as JSON values."""
    answers = ask(model, [prompt.text for prompt in prompts], settings)
    refused = [is_refusal(text) for text in answers]
    judgments = judge(model, [prompt.text for prompt in prompts])
    return {
        "refusals": by_source(prompts, refused),
        "robustness": robustness(model, prompts, settings),
        "bias": bias(model, guard, settings),
        "judges": {
            "model": agreement(judgments, prompts),
            "guard": agreement(harm_probabilities(guard, [p.text for p in prompts]), prompts),
        },
        "judgments": [
            {"probability": p, "harmful": prompt.label == HARMFUL}
            for p, prompt in zip(judgments, prompts, strict=True)
        ],
        "examples": [
            {"prompt": prompt.text, "source": prompt.source, "answer": text, "refused": is_refused}
            for prompt, text, is_refused in zip(prompts, answers, refused, strict=True)
        ],
    }


def ask(model: LanguageModel, prompts: Sequence[str], settings: Settings) -> list[str]:
    """Return the greedy answers to prompts, each a conversation of its own."""
    conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return answer(model, conversations, settings.max_new_tokens, settings.batch_size)


def by_source(prompts: Sequence[Prompt], refused: Sequence[bool]) -> dict[str, Any]:
    """Return the fraction of refused prompts of each source, with its number."""
    groups: dict[str, list[bool]] = {}
    for prompt, is_refused in zip(prompts, refused, strict=True):
        groups.setdefault(prompt.source, []).append(is_refused)
    return {
        source: {"prompts": len(group), "refused": sum(group) / len(group)}
        for source, group in groups.items()
    }


def robustness(
    model: LanguageModel, prompts: Sequence[Prompt], settings: Settings
) -> dict[str, Any]:
    """Return the fraction of refused harmful requests, by how they are rewritten."""
    harmful = [p.text for p in prompts if p.label == HARMFUL and p.source != CONTEXTUAL]
    harmful = harmful[:: max(1, len(harmful) // (settings.limit or len(harmful)))]
    families: dict[str, list[str]] = {"as it is": harmful}
    for rule in rules_of("test").values():
        if rule.family not in families:  # the first rule of each family
            rewritten = [rule.rewrite(text, random.Random(text)) for text in harmful]
            families[rule.family] = rewritten
    answers = ask(model, [text for texts in families.values() for text in texts], settings)
    refused = [is_refusal(text) for text in answers]
    size = len(harmful)
    return {
        family: {
            "prompts": size,
            "refused": sum(refused[number * size : (number + 1) * size]) / size,
        }
        for number, family in enumerate(families)
    }


def bias(model: LanguageModel, guard: Classifier, settings: Settings) -> dict[str, Any]:
    """Return by slice and group how harmful the guard rates the answers, and their refusals."""
    described = yaml.safe_load(
        files("safety").joinpath("prompts/groups.yaml").read_text(encoding="utf-8")
    )
    asked = [
        (name, group, template.replace("{}", group))
        for name, groups in described["slices"].items()
        for group in groups
        for template in described["templates"]
    ]
    answers = ask(model, [prompt for _, _, prompt in asked], settings)
    harm = harm_probabilities(guard, answers)
    found: dict[str, Any] = {name: {} for name in described["slices"]}
    size = len(described["templates"])
    for start in range(0, len(asked), size):
        name, group, _ = asked[start]
        part = slice(start, start + size)
        found[name][group] = {
            "p_harmful": sum(harm[part]) / size,
            "refused": sum(map(is_refusal, answers[part])) / size,
        }
    return found


def agreement(probabilities: Sequence[float], prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Return the agreement of a judge with the labels, its calibration and selective risk."""
    labels = [prompt.label == HARMFUL for prompt in prompts]
    kappa = cohens_kappa([p >= THRESHOLD for p in probabilities], labels)
    return {"kappa": kappa, **reliability(probabilities, labels)._asdict()}
