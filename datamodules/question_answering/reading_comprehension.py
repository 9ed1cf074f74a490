"""Questions about paragraphs as conversations, for the instruction tuning of a language model."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from datamodules.language_modeling.instructions import Instructions
from datamodules.question_answering.squad import Paragraph, Question, article_key, read_squad
from engine.errors import UserError
from preprocessing.chat import Message

Conversation = list[Message]


def conversation(context: str, questions: Sequence[Question]) -> Conversation:
    """Return a conversation about a paragraph, with the first answer to each question.

    Args:
        context: The paragraph, which the first message contains.
        questions: At least one.
    """
    messages: Conversation = []
    for question in questions:
        text = question.text if messages else ask(context, question.text)
        messages += [
            {"role": "user", "content": text},
            {"role": "assistant", "content": question.answers[0]},
        ]
    return messages


def ask(context: str, question: str) -> str:
    """Return the message that asks a question about a paragraph."""
    return f"{context}\n\nAnswer with a few words from the text above.\n{question}"


class ReadingComprehension(Instructions):
    """Serve questions about paragraphs, in files of SQuAD's form, as Instructions does.

    A sample is a conversation: a paragraph with a question, the answer, and further questions about
    the same paragraph with their answers. Whole articles are assigned to a split: articles of the
    validation or test file are left out of the training file.

    Args:
        train: JSON file, also compressed (`*.gz`), or a pattern with `*`. A relative path is looked
            up in the working directory, then in `data_dir`.
        val: Validation file; by default `val_fraction` of the articles of `train`.
        test: Test file; by default `test_fraction` of the articles of `train`.
        questions_per_sample: Largest number of questions in a conversation; 1: no conversation
            has a second question, and a paragraph is repeated for each of its questions.
        **kwargs: Arguments of Instructions.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        test: str | None = None,
        questions_per_sample: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(train, val, test, **kwargs)
        if questions_per_sample < 1:
            raise UserError(
                f"data.questions_per_sample must be at least 1, got {questions_per_sample}."
            )
        self.questions_per_sample = questions_per_sample

    @cached_property
    def conversations(self) -> dict[str, list[Conversation]]:
        """The conversations of train, val and test."""
        articles = self.split_samples()
        held_out = {article_key(a[0].title) for split in ("val", "test") for a in articles[split]}
        used = [a for a in articles["train"] if article_key(a[0].title) not in held_out]
        if left_out := len(articles["train"]) - len(used):
            rank_zero_warn(
                f"{left_out} of {len(articles['train'])} articles of {self.files['train']} are "
                "left out, since the validation or test data have articles of the same title."
            )
        if not used:
            raise UserError(
                f"{self.files['train']} has no articles that the validation and test data do not "
                "have, too."
            )
        articles["train"] = used
        size = self.questions_per_sample
        return {
            split: [
                conversation(paragraph.context, paragraph.questions[start : start + size])
                for paragraphs in articles[split]
                for paragraph in paragraphs
                for start in range(0, len(paragraph.questions), size)
            ]
            for split in articles
        }

    def read_file(self, file: Path) -> list[list[Paragraph]]:
        """Return the paragraphs of each article."""
        articles: dict[str, list[Paragraph]] = {}
        for paragraph in read_squad(file):
            articles.setdefault(article_key(paragraph.title), []).append(paragraph)
        return list(articles.values())
