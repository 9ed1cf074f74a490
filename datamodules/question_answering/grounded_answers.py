"""Answers that a passage supports or not, for a classifier that judges generated answers."""

import random
from collections.abc import Sequence
from typing import Any

from datamodules.classification.base import LabeledTexts, TextClassificationDataModule
from datamodules.question_answering.extractive_questions import ExtractiveQuestions
from datamodules.question_answering.squad import Paragraph, Question
from engine.errors import UserError
from preprocessing.grounding import statement, surroundings


class GroundedAnswers(TextClassificationDataModule):
    """Serve pairs of a passage and an answered question: does the passage support the answer?

    From files of SQuAD's form, whose articles are split as by ExtractiveQuestions. Each question
    gives a pair that is supported, the text around its answer with the question and the answer, and
    one that is not: in turn the same text with the answer to another question about the paragraph,
    and the answer with text of the article that does not contain it.

    Also takes the arguments of TextClassificationDataModule.

    Args:
        train: JSON files, also compressed (`*.gz`), or patterns with `*`. A relative path is looked
            up in the working directory, then in `data_dir`.
        val: Validation file; by default `val_fraction` of the articles of `train`.
        test: Test file; by default that of validation.
        val_fraction: Between 0 and 1.
    """

    class_names = ["unsupported", "supported"]  # noqa: RUF012  # as in the base class
    text_column, second_text_column = "passage", "answer"

    def __init__(
        self,
        train: list[str],
        val: str | None = None,
        test: str | None = None,
        val_fraction: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.questions = ExtractiveQuestions(
            train, val, test, val_fraction, data_dir=str(self.data_dir)
        )

    def load(self) -> dict[str, LabeledTexts]:
        found = {split: make_pairs(p) for split, p in self.questions.paragraphs.items()}
        for split, pairs in found.items():
            if not pairs.labels:
                raise UserError(
                    f"the {split} data have no paragraph with answers to two questions, from which "
                    "unsupported answers are made."
                )
        return found


def make_pairs(paragraphs: Sequence[Paragraph], seed: int = 0) -> LabeledTexts:
    """Return the pairs of texts, and 1 for supported, 0 for unsupported answers.

    Args:
        paragraphs: Those of one split.
        seed: Seed of the choice of unsupported answers.
    """
    draw = random.Random(seed)
    articles: dict[str, list[Paragraph]] = {}
    for paragraph in paragraphs:
        articles.setdefault(paragraph.title, []).append(paragraph)
    texts: list[Any] = []
    labels: list[Any] = []
    for paragraph in paragraphs:
        for question in paragraph.questions:
            answer = question.answers[0]
            start = paragraph.context.find(answer)
            if start < 0:
                continue
            passage = surroundings(paragraph.context, start, start + len(answer))
            other_answer = _other_answer(paragraph, question, passage, draw)
            other_passage = _other_passage(articles[paragraph.title], question, draw)
            in_turn = [other_answer, other_passage][:: 1 if len(texts) % 4 else -1]
            if wrong := in_turn[0] or in_turn[1]:
                texts += [(passage, statement(question.text, answer)), wrong]
                labels += [1, 0]
    return LabeledTexts(texts, labels)


def _other_answer(
    paragraph: Paragraph, question: Question, passage: str, draw: random.Random
) -> tuple[str, str] | None:
    """Return the passage with the answer to another question, one in the passage if there is."""
    right = {answer.lower() for answer in question.answers}
    others = [
        one.answers[0]
        for one in paragraph.questions
        if not any(a in one.answers[0].lower() or one.answers[0].lower() in a for a in right)
    ]
    if not others:
        return None
    near = [answer for answer in others if answer in passage]
    return passage, statement(question.text, draw.choice(near or others))


def _other_passage(
    article: Sequence[Paragraph], question: Question, draw: random.Random
) -> tuple[str, str] | None:
    """Return the answer with text around another answer of the article that does not contain it."""
    lowered = [answer.lower() for answer in question.answers]
    for _ in range(10):
        paragraph = draw.choice(article)
        other = draw.choice(paragraph.questions).answers[0]
        start = paragraph.context.find(other)
        passage = surroundings(paragraph.context, start, start + len(other)) if start >= 0 else ""
        if passage and not any(answer in passage.lower() for answer in lowered):
            return passage, statement(question.text, question.answers[0])
    return None
