"""Question answering over an index of documents, as a task that a worker serves."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from engine.errors import UserError
from retrieval.answering import Answer
from retrieval.generation import FollowUps, Turn
from retrieval.index import Index, current_version
from retrieval.indexing import check_encoder
from retrieval.opening import AnsweringSettings, open_answering

EXAMPLE = "What are these documents about?"


class Documents:
    """Answers questions about the documents of an index, in the version that is current.

    Args:
        settings: The index, and how questions are answered.

    Raises:
        UserError: If the index, a checkpoint or the calibration cannot be read.
    """

    def __init__(self, settings: AnsweringSettings) -> None:
        self.settings = settings
        self.version = current_version(settings.index)
        self.answering = open_answering(settings)
        self.chat = getattr(self.answering.answerer, "chat", None)

    def to(self, device: torch.device) -> "Documents":
        """Move the networks to a device."""
        reader = getattr(self.answering.answerer, "reader", None)
        models = (self.answering.retriever.encoder, self.chat)
        networks = [reader, *(getattr(holder, "model", None) for holder in models)]
        for network in networks:
            if isinstance(network, torch.nn.Module):
                network.to(device)
        return self

    def answer(
        self,
        questions: Sequence[str],
        history: Sequence[Sequence[str]] = (),
        top_k: int | None = None,
    ) -> list[dict[str, Any]]:
        """Return one answer per question, as plain values.

        Args:
            questions: The questions.
            history: Earlier questions and their answers, which follow-up questions refer to.
            top_k: How many passages are read; by default that of the settings.
        """
        self._reopen()
        follow_ups = FollowUps(self.chat)
        follow_ups.resume([Turn(*turn) for turn in history])
        found = []
        for question in map(follow_ups.rewrite, questions):
            answer = self.answering.ask(question, passages=top_k)
            found.append(_plain(answer) | {"question": question})
        return found

    def _reopen(self) -> None:
        """Open the new version of an index that was updated; keep the former if that fails."""
        version = current_version(self.settings.index)
        if version in (None, self.version):
            return
        self.version = version  # also of a damaged one, which is not opened again and again
        retriever = self.answering.retriever
        try:
            index = Index.open(self.settings.index, self.settings.verify)
            check_encoder(index, retriever.encoder, self.settings.index)
        except (UserError, OSError) as error:
            sys.stderr.write(f"the former version of the index is served: {error}\n")
        else:
            retriever.index = index

    def describe(self) -> dict[str, Any]:
        """Return what clients may know: no paths."""
        index = self.answering.index
        return {
            "task": type(self.answering).__name__,
            "operations": ["answer"],
            "input": "text",
            "runtime": "torch",
            "network": type(self.answering.answerer).__name__,
            "parameters": getattr(self.answering.retriever.encoder, "parameters", None),
            "context": None,
            "labels": None,
            "chat": False,
            "metrics": None,
            "documents": len(index.documents),
            "chunks": len(index.chunks),
            "examples": {"answer": {"inputs": [EXAMPLE]}},
        }


def open_documents(index: str, settings: dict[str, Any]) -> Documents:
    """Open an index with the settings of a server.

    Args:
        index: The index folder.
        settings: Arguments of AnsweringSettings as plain values.

    Raises:
        UserError: As `Documents`.
    """
    paths = {n: Path(settings[n]) for n in ("reader", "calibration") if settings.get(n)}
    return Documents(AnsweringSettings(Path(index).expanduser(), **settings | paths))


def _plain(answer: Answer) -> dict[str, Any]:
    passages = [
        {
            "document": passage.document,
            "start": passage.start,
            "end": passage.end,
            "text": passage.text,
            "heading": passage.heading,
            "score": round(passage.score, 4),
        }
        for passage in answer.passages
    ]
    return answer.as_dict() | {"abstained": answer.abstained, "passages": passages}
