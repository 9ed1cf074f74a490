"""Read the config of the capstone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser

from engine.errors import UserError
from engine.run.expectations import is_met


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Args:
        config: Config of train.py.
        short: Arguments of train.py of the short settings.
        full: Arguments of train.py of the full settings.
    """

    config: str
    short: list[str] = field(default_factory=list)
    full: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Squad:
    """Data of SQuAD's form, which are used where the folder of the data sets has them.

    Args:
        train: Questions to train encoder and reader with.
        test: Paragraphs to index, and their questions.
        paragraphs: How many paragraphs of `test` are indexed.
        questions: How many of their questions are asked, one per paragraph.
    """

    train: str = "squad/train-part-44-articles.json.gz"
    test: str = "xquad/xquad.en.json"
    paragraphs: int = 40
    questions: int = 40


@dataclass(frozen=True)
class Load:
    """The load test.

    Args:
        rate: Questions per second.
        seconds: Duration.
        clients: Connections.
    """

    rate: float = 4.0
    seconds: float = 10.0
    clients: int = 4


@dataclass(frozen=True)
class Capstone:
    """What `python -m pipelines.capstone` runs.

    Args:
        documents: Files, folders and patterns.
        encoder: Training of the encoder.
        reader: Training of the reader.
        guard: Training of the guard.
        questions: JSON lines of `question`, `answer` (null if the documents have none) and
            optionally `document`; without them questions are made from the documents.
        squad: Data of SQuAD's form.
        load: The load test.
        expect: The gates: metric to expectation, such as `retrieval/recall@5: ">= 0.8"`.
    """

    documents: list[str]
    encoder: Training
    reader: Training
    guard: Training
    questions: str | None = None
    squad: Squad = field(default_factory=Squad)
    load: Load = field(default_factory=Load)
    expect: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, expectation in self.expect.items():
            try:
                is_met(expectation, 0.0)
            except ValueError as error:
                raise UserError(f"expect.{name}: {error}.") from error


def read_settings(config: Path, flags: Sequence[str] = ()) -> Capstone:
    """Return the settings of a YAML file.

    Args:
        config: The file.
        flags: Values that replace those of the file, such as `--load.seconds 30`.

    Raises:
        UserError: If the file is missing, or a key or value is not valid.
    """
    if not config.is_file():
        raise UserError(f"--config {config}: no such file (looked for from {Path.cwd()}).")
    parser = ArgumentParser(exit_on_error=False, prog="pipelines.capstone")
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Capstone, nested_key=None)
    try:
        parsed = parser.parse_args([f"--config={config}", *flags])
    except ArgumentError as error:
        raise UserError(f"{config}: {error}") from error
    built = parser.instantiate_classes(parsed)
    return Capstone(**{name: value for name, value in vars(built).items() if name != "config"})
