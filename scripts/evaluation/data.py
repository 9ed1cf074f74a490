"""The data that a classifier was trained on, from the config of its run."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from jsonargparse import ArgumentError, ArgumentParser

from cli.arguments import settings_of
from cli.diagnosis import Schema, explain, root_cause
from engine.errors import UserError
from modules import Classifier


def run_folder_of(checkpoint: Path) -> Path:
    """Return the run folder of a checkpoint in `checkpoints/`.

    Raises:
        UserError: If it is not in a run folder.
    """
    folder = checkpoint.resolve().parent.parent
    if not (folder / "config.yaml").is_file():
        raise UserError(
            f"{checkpoint} is not in a run folder ({folder / 'config.yaml'} does not exist): pass "
            "--data CONFIG and --output FOLDER."
        )
    shown = checkpoint.parent.parent
    return shown if shown.resolve() == folder else folder


def open_data(
    checkpoint: Path, config: Path | None = None, data_dir: str | None = None
) -> L.LightningDataModule:
    """Instantiate and set up the DataModule of a checkpoint's run, or of a config.

    Args:
        checkpoint: A checkpoint in a run folder.
        config: The config of other data.
        data_dir: Folder of the data sets, instead of that of the config.

    Raises:
        UserError: If there is no config, or it or its data are not valid.
    """
    config = config or run_folder_of(checkpoint) / "config.yaml"
    try:
        description = yaml.safe_load(config.read_text())["data"]
    except OSError as error:
        raise UserError(f"--data: cannot read {config}: {error}.") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"--data: {config} is not a config with a key `data`; see configs/mnist/cnn.yaml."
        ) from error
    if isinstance(description, str):
        description = {"class_path": description}
    if data_dir:
        description.setdefault("init_args", {})["data_dir"] = data_dir
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(L.LightningDataModule, "data")
    try:
        made = parser.instantiate_classes(parser.parse_object({"data": description}))
    except ArgumentError as error:
        settings = settings_of({"data": description})
        message = explain(error, settings, Schema({"data": L.LightningDataModule}))
        raise UserError(f"{config}: {message}") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"{config}: {root_cause(error)}") from error
    data: L.LightningDataModule = made.data
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def check_fits(name: str, task: Classifier, data: Any) -> None:
    """Raise a UserError if classes or preprocessing of the data are not those of the checkpoint."""
    theirs = getattr(data, "class_names", None)
    if theirs is None or [*map(str, theirs)] != [*map(str, task.class_names)]:
        raise UserError(
            f"{name} has the classes {', '.join(task.class_names)}, but {type(data).__name__} has "
            f"{', '.join(map(str, theirs)) if theirs else 'none'}: pass --data with the config of "
            "its own data."
        )
    ours, asked = task.preprocessing or {}, getattr(data, "preprocessing", None) or {}
    for key in sorted(ours.keys() & asked.keys()):
        if ours[key] != asked[key]:
            raise UserError(
                f"{name} was trained on images with {key} {ours[key]}, but these data have "
                f"{asked[key]}: evaluate checkpoints with different preprocessing separately."
            )


def check_tokenizer(name: str, task: Classifier, data: Any) -> None:
    """Raise a UserError if the tokenizer of the data is not that of the checkpoint."""
    ours, theirs = task.hparams.get("tokenizer"), getattr(data, "tokenizer_json", None)
    if ours is None and theirs is None:
        return
    if ours is None or theirs is None or json.loads(ours) != json.loads(theirs):
        raise UserError(
            f"{name} was trained with another tokenizer or context than {type(data).__name__} has: "
            "evaluate checkpoints with different tokenizers separately, each with --data CONFIG."
        )
