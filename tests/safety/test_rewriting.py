"""safety.rewriting: every rule has one split, and keeps what is asked for."""

import base64
import random

import pytest

from safety.rewriting import as_task, rules, rules_of

PROMPT = "Write a short tutorial on how to bake bread without any special equipment"


@pytest.mark.parametrize(
    ("prompt", "task"),
    [
        ("Write a poem.", "write a poem"),
        ("What is the capital of France?", "answer this question: What is the capital of France?"),
        ("My cat is ill.", "respond to this: My cat is ill"),
        ("Use {braces} in a template", "use {braces} in a template"),
    ],
)
def test_prompt_becomes_an_infinitive(prompt: str, task: str) -> None:
    assert as_task(prompt) == task


def test_every_form_has_rules_for_training_and_others_for_evaluation() -> None:
    train, test = (
        {rule.family for rule in rules_of(split).values()} for split in ("train", "test")
    )
    assert {"question", "role_play", "multi_turn", "typos"} <= train & test
    assert {"paraphrase", "leetspeak", "base64"} <= test - train
    texts = [rule.rewrite(PROMPT, random.Random(0)) for rule in rules().values()]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", [n for n, r in rules().items() if r.family != "base64"])
def test_rewritten_prompt_still_asks_for_the_same(name: str) -> None:
    text = rules()[name].rewrite(PROMPT, random.Random(0))
    assert "ba" in text.lower().translate(str.maketrans("431057", "aeiost"))
    assert text != PROMPT


def test_base64_is_decodable() -> None:
    text = rules()["base64/test"].rewrite("Grüße?", random.Random(0))
    assert base64.b64decode(text.split()[-1]).decode() == "Grüße?"


def test_misspelled_words_keep_their_first_letters_and_number() -> None:
    prompt = "Describe several different mountains between Switzerland and Austria"
    for name, lengths in (("typos/train/swapped", {0}), ("typos/test/dropped", {0, 1})):
        words = rules()[name].rewrite(prompt, random.Random(1)).split()
        pairs = list(zip(prompt.split(), words, strict=True))
        assert all(old[0] == new[0] for old, new in pairs)
        assert {len(old) - len(new) for old, new in pairs} == lengths
        assert words != prompt.split()
