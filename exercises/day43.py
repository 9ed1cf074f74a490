"""Day 43: prompts: chat templates, examples, answers of several samples, structured answers."""

from typing import Any


def render_chat(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    """Return the prompt of a conversation in the form of ChatML.

        <|im_start|>ROLE\\nCONTENT<|im_end|>\\n            for each message
        <|im_start|>assistant\\n                          if add_generation_prompt

    A user must not be able to write messages of another role: remove "<|im_start|>" and
    "<|im_end|>" from contents, also where the removal would form a new one.

    Args:
        messages: Each with "role" and "content".
        add_generation_prompt: Whether the answer of the assistant follows.

    Raises:
        ValueError: If a role is not system, user or assistant, or system is not the first message.
    """
    raise NotImplementedError


def choose_examples(similarity: list[float], labels: list[str], number: int) -> list[int]:
    """Choose examples for a prompt: similar ones, with balanced labels, the most similar one last.

    Take in turns the most similar remaining example of each label, labels in alphabetical order; a
    label without examples is skipped. Models pay most attention to the end, so return the chosen
    indices by ascending similarity (equal ones: smaller index first).

    Args:
        similarity: Similarity of each example to the question.
        labels: Label of each example.
        number: Number of examples; all if there are fewer.

    Source: Liu et al. 2022 (arXiv:2101.06804); Zhao et al. 2021 (arXiv:2102.09690).
    """
    raise NotImplementedError


def majority_answer(answers: list[str | None]) -> tuple[str | None, float]:
    """Return the most frequent answer of several samples and its share.

    None is a sample without an answer: it counts for the share, but cannot win. Of equally frequent
    answers the one that came first wins. Without any answer the result is (None, 0.0).

    Args:
        answers: Answer of each sample.

    Source: Wang et al. 2023 (arXiv:2203.11171), self-consistency.
    """
    raise NotImplementedError


def parse_answer(text: str, keys: dict[str, type]) -> dict[str, Any]:
    """Return the JSON object in a model's answer.

    Models write text or a code fence around it: take the first "{" from which a valid JSON object
    can be read, and ignore what follows the object. True and False are no integers.

    Args:
        text: The answer.
        keys: Required keys and their types (str, int, float, bool, list).

    Raises:
        ValueError: If there is no object, or a key is missing or of another type; the message names
            the key. An int is accepted where a float is required.
    """
    raise NotImplementedError
