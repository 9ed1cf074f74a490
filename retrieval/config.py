"""Read the config of an evaluation."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser

from engine.errors import UserError
from retrieval.evaluation import Evaluation


def read_evaluation(config: Path, flags: Sequence[str] = ()) -> Evaluation:
    """Return the evaluation that a YAML file describes.

    Args:
        config: The file.
        flags: Values that replace those of the file, such as `--data.questions 100`.

    Raises:
        UserError: If the file is missing, or a key or value is not valid.
    """
    if not config.is_file():
        raise UserError(f"--config {config}: no such file (looked for from {Path.cwd()}).")
    parser = ArgumentParser(exit_on_error=False, prog="rag.py evaluate")
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Evaluation, nested_key=None)
    try:
        parsed = parser.parse_args([f"--config={config}", *flags])
    except ArgumentError as error:
        raise UserError(f"{config}: {error}") from error
    built = parser.instantiate_classes(parsed)
    values = {name: value for name, value in vars(built).items() if name != "config"}
    return Evaluation(**values)
