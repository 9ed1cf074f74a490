"""Files in the form of SQuAD: articles of paragraphs with questions and answers.

Rajpurkar et al. 2016, "SQuAD: 100,000+ questions for machine comprehension of text". An answer is a
part of its paragraph. XQuAD, SQuADShifts and PolicyQA have the same form.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from datamodules.text.reading import read_utf8
from engine.errors import UserError


class Question(NamedTuple):
    """A question and the answers that annotators gave."""

    id: str
    text: str
    answers: list[str]
    starts: tuple[int | None, ...] = ()  # offsets of the answers in the paragraph, where given


class Paragraph(NamedTuple):
    """A paragraph of an article, with its questions."""

    title: str
    context: str
    questions: list[Question]


def read_squad(path: Path) -> list[Paragraph]:
    """Return the paragraphs of a file that have questions.

    Args:
        path: JSON, compressed if its name ends with `.gz`. Answers need no `answer_start`;
            questions without an answer, as SQuAD 2.0 has, are left out.

    Raises:
        UserError: If the file is missing or does not have this form.
    """
    if not path.is_file():
        raise UserError(f"No file {path} (looked for from {Path.cwd()}): correct its name.")
    try:
        articles = json.loads(read_utf8(path))["data"]
        found = [
            Paragraph(article["title"], part["context"], _read_questions(part["qas"]))
            for article in articles
            for part in article["paragraphs"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} does not have the form of SQuAD, {{'data': [{{'title', 'paragraphs': "
            f"[{{'context', 'qas': [{{'id', 'question', 'answers'}}]}}]}}]}}: "
            f"{type(error).__name__} {error}."
        ) from error
    found = [paragraph for paragraph in found if paragraph.questions]
    if not found:
        raise UserError(f"{path} has no answered questions.")
    return found


def _read_questions(records: list[dict[str, Any]]) -> list[Question]:
    return [
        Question(
            record["id"],
            record["question"].strip(),
            [answer["text"].strip() for answer in record["answers"]],
            tuple(map(_start, record["answers"])),
        )
        for record in records
        if record["answers"]
    ]


def _start(answer: dict[str, Any]) -> int | None:
    """Return the offset of an answer without the white space before it."""
    text, start = answer["text"], answer.get("answer_start")
    return None if start is None else start + len(text) - len(text.lstrip())


def article_key(title: str) -> str:
    """Return the title of an article in one spelling: some files write `%C3%A9` for `é`."""
    return unquote(title).replace("_", " ").casefold()
