"""Strategies ask a scripted model and use its answers."""

from collections.abc import Sequence

import pytest

from engine.errors import UserError
from prompts.strategies import (
    Message,
    chain_of_thought,
    decompose,
    final_answer,
    self_consistency,
)

QUESTION = [{"role": "system", "content": "Be exact."}, {"role": "user", "content": "2 + 3 · 4?"}]


class Script:
    """Answers in a given order, and the conversations that were sent."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[list[Message]] = []

    def __call__(self, messages: Sequence[Message], seed: int = 0) -> str:
        self.asked.append(list(messages))
        return self.answers[len(self.asked) - 1]


def test_chain_of_thought_asks_for_reasoning_and_returns_the_answer() -> None:
    model = Script("3 · 4 is 12, and 2 more are 14.\nAnswer: 14.")
    assert chain_of_thought(model, QUESTION) == "14"
    system, user = model.asked[0]
    assert system == QUESTION[0]
    assert user["content"].startswith("2 + 3 · 4?\n\nThink step by step.")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: a\nNo, Answer: **b**", "b"),
        ("the answer is: Paris.", "Paris"),
        ("first\n\nlast line\n", "last line"),
        ("", ""),
    ],
)
def test_final_answer(text: str, answer: str) -> None:
    assert final_answer(text) == answer


def test_self_consistency_returns_the_most_frequent_answer() -> None:
    seeds = []

    def sample(messages: Sequence[Message], seed: int) -> str:
        seeds.append(seed)
        return f"Answer: {['Yes', 'no', 'yes', 'no', 'YES'][seed - 7]}"

    votes = self_consistency(sample, QUESTION, number=5, seed=7)
    assert votes.answer == "yes"
    assert votes.counts == {"yes": 3, "no": 2}
    assert seeds == [7, 8, 9, 10, 11]
    with pytest.raises(UserError, match="at least one sample"):
        self_consistency(sample, QUESTION, number=0)


def test_decomposition_answers_the_parts_first_each_with_those_before() -> None:
    model = Script("1. What is 3 · 4?\n\n- What is 2 + 12?\n3) Too many?", "12", "14", "It is 14.")
    result = decompose(model, QUESTION, max_parts=2)
    assert result.answer == "It is 14."
    assert result.parts == [("What is 3 · 4?", "12"), ("What is 2 + 12?", "14")]
    assert model.asked[2][1]["content"].endswith("What is 3 · 4?\n12\n\nWhat is 2 + 12?")
    assert "What is 2 + 12?\n14\n\nWith this" in model.asked[3][1]["content"]


def test_a_prompt_ends_with_the_user() -> None:
    with pytest.raises(UserError, match="must be the user's"):
        chain_of_thought(Script("x"), [{"role": "assistant", "content": "hi"}])
