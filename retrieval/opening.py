"""Open question answering: an index, its encoder, and what makes the answers."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.checkpoint.reading import load_task
from engine.errors import UserError
from modules.classifier import Classifier
from modules.span_reader import SpanReader
from retrieval import encoders
from retrieval.answering import Answerer, QuestionAnswering
from retrieval.confidence import Calibration
from retrieval.generation import EndpointChat, GeneratedAnswers, LocalChat
from retrieval.index import Index
from retrieval.indexing import check_encoder
from retrieval.reading import ReaderAnswers
from retrieval.retriever import Retriever

GROUNDING_CLASSES = ["unsupported", "supported"]  # of datamodules.GroundedAnswers
API_KEY = "STEPLADDER_API_KEY"  # environment variable: the key of a generator at an address


@dataclass(frozen=True)
class AnsweringSettings:
    """How questions are answered.

    Args:
        index: The index folder.
        reader: Checkpoint of a modules.SpanReader: answers are parts of the passages.
        generator: A language model that writes the answers, or the address of OpenAI's API.
        model: Name of the generator at an address.
        passages: How many passages are read.
        threshold: Smallest score of an answer; by default that of the calibration.
        calibration: File that `rag.py evaluate` writes.
        verify: Compare the files of the index with their checksums.

    Raises:
        UserError: If passages is not positive, or there are a reader and a generator.
    """

    index: Path
    reader: Path | None = None
    generator: str | None = None
    model: str = "default"
    passages: int = 5
    threshold: float | None = None
    calibration: Path | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        if self.passages < 1:
            raise UserError(f"passages must be at least 1, got {self.passages}.")
        if self.reader is not None and self.generator is not None:
            raise UserError("a reader and a generator exclude each other: choose one.")


def open_answering(settings: AnsweringSettings) -> QuestionAnswering:
    """Open an index and what answers from it.

    Raises:
        UserError: If the index, a checkpoint or the calibration cannot be read, or the index was
            made with another encoder.
    """
    index = Index.open(settings.index, settings.verify)
    encoder = encoders.SentenceVectors(index.manifest["encoder"]["source"])
    check_encoder(index, encoder, settings.index)
    calibration = Calibration()
    if settings.calibration is not None:
        calibration = Calibration.read(settings.calibration)
    if settings.threshold is not None:
        calibration = replace(calibration, threshold=settings.threshold)
    answerer: Answerer | None = None
    if settings.reader is not None:
        answerer = open_reader(settings.reader)
    elif settings.generator is not None:
        answerer = GeneratedAnswers(open_generator(settings.generator, settings.model))
    return QuestionAnswering(Retriever(index, encoder), answerer, calibration, settings.passages)


def open_generator(source: str, model: str) -> Any:
    """Return a language model, or the client of one at an address."""
    if "://" in source:
        return EndpointChat(source, model, os.environ.get(API_KEY))
    return LocalChat(source)


def open_reader(path: Path) -> ReaderAnswers:
    """Return the answers of a reader's checkpoint.

    Raises:
        UserError: If it cannot be read.
    """
    config = "a config of a reader, such as configs/squad/minilm_reader.yaml"
    return ReaderAnswers(load_task(path, SpanReader, config))


def open_grounding(path: str | Path) -> Classifier:
    """Return the classifier that judges whether a passage supports an answer.

    Raises:
        UserError: If it cannot be read, or is another classifier.
    """
    task = load_task(Path(path), Classifier, "configs/squad/minilm_grounding.yaml")
    if task.class_names != GROUNDING_CLASSES:
        raise UserError(
            f"{path} has the classes {task.class_names}, not {GROUNDING_CLASSES}: train one with "
            "configs/squad/minilm_grounding.yaml."
        )
    return task
