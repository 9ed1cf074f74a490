"""Ask a language model in other ways than once: reasoning, votes, partial questions.

A model is a function from a conversation, `{"role", "content"}` of each message, to a text.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from engine.errors import UserError

Message = dict[str, str]
Complete = Callable[[Sequence[Message]], str]
Sample = Callable[[Sequence[Message], int], str]  # the second argument is a seed

REASONING = (
    "Think step by step. Write your reasoning first, and then a last line of the form\n"
    "Answer: <your answer>"
)
FINAL = re.compile(r"answer\s*(?:is)?\s*[:\-]\s*(.+)", re.IGNORECASE)
PARTS = (
    "Which simpler questions have to be answered first? Write at most {count}, one per line, and "
    "nothing else."
)
NUMBERING = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s*")


class Votes(NamedTuple):
    """The most frequent answer of several, and how often each was given."""

    answer: str
    counts: Counter[str]


class Decomposition(NamedTuple):
    """An answer with the partial questions and answers that led to it."""

    answer: str
    parts: list[tuple[str, str]]


def with_reasoning(messages: Sequence[Message]) -> list[Message]:
    """Return a conversation that asks for the reasoning before the answer.

    Wei et al. 2022, "Chain-of-thought prompting elicits reasoning in large language models".

    Raises:
        UserError: If the last message is not the user's.
    """
    *earlier, last = _checked(messages)
    return [*earlier, last | {"content": f"{last['content']}\n\n{REASONING}"}]


def final_answer(text: str) -> str:
    """Return what follows the last `Answer:` of a text, else its last line."""
    if found := FINAL.findall(text):
        return str(found[-1]).strip().strip(".*\"'")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def chain_of_thought(complete: Complete, messages: Sequence[Message]) -> str:
    """Return the answer that a model gives after its reasoning."""
    return final_answer(complete(with_reasoning(messages)))


def self_consistency(
    sample: Sample, messages: Sequence[Message], number: int = 5, seed: int = 0
) -> Votes:
    """Return the most frequent answer of several samples with reasoning.

    Wang et al. 2023, "Self-consistency improves chain of thought reasoning in language models".
    Answers that differ in capital letters only are the same; of equally frequent ones the first
    counts.

    Args:
        sample: The model; equal seeds give equal texts.
        messages: The question.
        number: Number of samples, at least 1.
        seed: Seed of the first sample; the others have the following ones.

    Raises:
        UserError: If the number is below 1.
    """
    if number < 1:
        raise UserError(f"self-consistency needs at least one sample, got {number}.")
    asked = with_reasoning(messages)
    answers = [final_answer(sample(asked, seed + n)).lower() for n in range(number)]
    counts = Counter(answers)
    return Votes(counts.most_common(1)[0][0], counts)


def decompose(complete: Complete, messages: Sequence[Message], max_parts: int = 3) -> Decomposition:
    """Answer simpler questions first, and then the question with their answers.

    Zhou et al. 2023, "Least-to-most prompting enables complex reasoning in large language models".

    Args:
        complete: The model.
        messages: The question.
        max_parts: Maximum number of partial questions, at least 1.
    """
    *earlier, last = _checked(messages)
    plan = f"{last['content']}\n\n{PARTS.format(count=max_parts)}"
    lines = complete([*earlier, last | {"content": plan}]).splitlines()
    questions = [NUMBERING.sub("", line).strip() for line in lines]
    parts: list[tuple[str, str]] = []
    for question in [text for text in questions if text][:max_parts]:
        known = "".join(f"{q}\n{a}\n\n" for q, a in parts)
        content = f"{last['content']}\n\n{known}{question}"
        parts.append((question, complete([*earlier, last | {"content": content}]).strip()))
    known = "".join(f"\n\n{q}\n{a}" for q, a in parts)
    final = f"{last['content']}{known}\n\nWith this, answer the question: {last['content']}"
    return Decomposition(complete([*earlier, last | {"content": final}]).strip(), parts)


def _checked(messages: Sequence[Message]) -> list[Message]:
    if not messages or messages[-1]["role"] != "user":
        raise UserError("the last message of a prompt must be the user's.")
    return list(messages)
