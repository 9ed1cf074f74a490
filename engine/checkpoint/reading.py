"""Reading checkpoint files of unknown origin: plain data only, and the task one expects."""

import pickle
import warnings
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from tokenizers import Tokenizer

from engine.checkpoint.sharded import check_complete, is_sharded, read_sharded
from engine.renamed import upgrade_hyperparameters

Task = TypeVar("Task", bound=L.LightningModule)
INSTEAD = {  # what a checkpoint of another task is good for
    "Translator": (
        " A Translator translates by `python train.py predict --config RUN_FOLDER/config.yaml "
        "--ckpt_path CHECKPOINT --data.predict FILE`, or in Python by its `translate(texts)`."
    )
}
BEGINNINGS = (b"PK", b"\x80")  # of a zip file, as torch writes it, and of a plain pickle


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a Lightning checkpoint onto the CPU without running any code that it may carry.

    Of a folder that several processes wrote come the weights and hyper-parameters.

    Raises:
        MisconfigurationException: If the file is missing, no checkpoint, or more than plain data.
    """
    path = Path(path)
    if is_sharded(path):
        return read_sharded(path)
    if not path.is_file():
        raise MisconfigurationException(f"there is no checkpoint at {path}.")
    with path.open("rb") as file:
        if not file.read(4).startswith(BEGINNINGS):  # torch would run into it as if it were one
            raise MisconfigurationException(f"{path} is no checkpoint.")
    try:
        with warnings.catch_warnings(action="ignore"):  # what torch finds odd is refused below
            checkpoint = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error):
            raise MisconfigurationException(
                f"{path} is refused: loading it would run code that it brings along. A checkpoint "
                "of this project holds plain data only."
            ) from error
        raise MisconfigurationException(f"{path} is no checkpoint.") from error
    except Exception as error:  # in a file of unknown origin the unpickler may meet anything
        raise MisconfigurationException(
            f"{path} is no checkpoint, or a damaged one: {error}"
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise MisconfigurationException(
            f"{path} is no checkpoint of a LightningModule: it has no state_dict."
        )
    upgrade_hyperparameters(checkpoint)
    return checkpoint


def load_task(path: str | Path, kind: type[Task], made_by: str) -> Task:
    """Rebuild a task from its checkpoint alone, in eval mode on the CPU.

    Args:
        path: The checkpoint.
        kind: The task that it must hold.
        made_by: Configs that make such checkpoints, for the message.

    Raises:
        MisconfigurationException: Saying what stands there instead.
    """
    if is_sharded(Path(path)):
        raise MisconfigurationException(
            f"{path} is a folder that several processes wrote; one file is made of it by python "
            f"export.py --checkpoint {path} --format checkpoint --output FOLDER."
        )
    saved = read_checkpoint(path).get("hyper_parameters", {})
    task = saved.get("_class_path", "")
    if task.rpartition(".")[2] != kind.__name__:
        found = f"the task {task}" if task else "an unnamed task"
        raise MisconfigurationException(
            f"{path} holds {found}, and a modules.{kind.__name__} is needed: give a checkpoint "
            f"that train.py made with {made_by}.{INSTEAD.get(task.rpartition('.')[2], '')}"
        )
    instantiator = saved.get("_instantiator", "")  # a name that Lightning would import and call
    if instantiator != "lightning.pytorch.cli.instantiate_module":
        raise MisconfigurationException(
            f"{path} is refused: it asks to be built by {instantiator or 'nothing we know'}."
        )
    try:
        # Read a second time: Lightning builds from files only.
        model = kind.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    except (RuntimeError, TypeError, ValueError) as error:  # of torch and jsonargparse
        raise MisconfigurationException(
            f"{path} does not fit this version of its net: {error}"
        ) from error
    return model.eval()


def check_checkpoint(path: str | Path) -> None:
    """Make sure that a checkpoint is whole; of a folder without reading it all.

    Raises:
        MisconfigurationException: As `read_checkpoint`.
    """
    if is_sharded(Path(path)):
        check_complete(Path(path))
    else:
        read_checkpoint(path)


def check_fits(checkpoint: dict[str, Any], task: L.LightningModule, path: str | Path) -> None:
    """Make sure that a checkpoint holds the weights of just this task and net, for such data.

    Raises:
        MisconfigurationException: Naming what differs: tokens, classes, the two classes of Python,
            or the first weight.
    """
    saved = checkpoint.get("hyper_parameters", {})
    _check_same_tokens(checkpoint, task, path)
    names, ours = saved.get("class_names"), task.hparams.get("class_names")
    if names and ours and list(names) != list(ours):
        raise MisconfigurationException(
            f"{path} knows the classes {_some(names)}, and these data have {_some(ours)}, in that "
            "order: its answers would count as others. Name the data that it learnt from."
        )
    for what, asked, found in (
        ("task", type(task).__name__, saved.get("_class_path", "")),
        ("net", type(getattr(task, "net", None)).__name__, _class_path(saved.get("net"))),
    ):
        if found and found.rpartition(".")[2] != asked:
            raise MisconfigurationException(
                f"{path} holds the {what} {found}, but the config asks for {asked}."
            )
    weights = task.state_dict()
    for name in [*weights, *checkpoint["state_dict"]]:
        ours, theirs = weights.get(name), checkpoint["state_dict"].get(name)
        sizes = [None if w is None else tuple(w.shape) for w in (ours, theirs)]
        if sizes[0] != sizes[1]:
            raise MisconfigurationException(
                f"{path} does not fit the config: {name} is {sizes[1] or 'missing'} in the "
                f"checkpoint and {sizes[0] or 'missing'} in the net. Use the config.yaml of the "
                "run that made it."
            )


def init_from(path: str | Path, task: L.LightningModule) -> None:
    """Begin with the weights of a checkpoint: those whose name and shape the task has too.

    Others, of a new head for instance, stay as they were initialised; a warning names them, and
    what of the checkpoint found no place.

    Raises:
        MisconfigurationException: If it can't be read, nothing fits, or it reads texts otherwise.
    """
    checkpoint = read_checkpoint(path)
    _check_same_tokens(checkpoint, task, path)
    found = checkpoint["state_dict"]
    weights = task.state_dict()
    fitting = {n: w for n, w in found.items() if n in weights and weights[n].shape == w.shape}
    if not fitting:
        raise MisconfigurationException(
            f"--init_from: no weight of {path} has the name and shape of one of this "
            f"{type(getattr(task, 'net', task)).__name__}: they are different nets."
        )
    task.load_state_dict(fitting, strict=False)
    fresh = [
        f"{name} ({tuple(found[name].shape)} there, {tuple(weights[name].shape)} here)"
        if name in found
        else name
        for name in sorted(weights.keys() - fitting.keys())
    ]
    if fresh:
        left = sorted(found.keys() - weights.keys())
        behind = f"; left behind are {_some(left)}" if left else ""
        rank_zero_warn(
            f"--init_from: {len(fitting)} of {len(weights)} weights are from {path}; freshly "
            f"initialised are {_some(fresh)}{behind}."
        )


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}"


def _check_same_tokens(
    checkpoint: dict[str, Any], task: L.LightningModule, path: str | Path
) -> None:
    """A vector that was learnt for one word must not become that of another."""
    saved = checkpoint.get("hyper_parameters", {})
    for name in ("tokenizer", "source_tokenizer", "target_tokenizer"):
        theirs, ours = saved.get(name), task.hparams.get(name)
        if not isinstance(theirs, str) or not isinstance(ours, str) or theirs == ours:
            continue
        vocab, other = (Tokenizer.from_str(text).get_vocab() for text in (ours, theirs))
        differ = [token for token in sorted(other) if other[token] != vocab.get(token)]
        if vocab == other:
            continue
        example = f", {differ[0]!r} for instance" if differ else ""
        raise MisconfigurationException(
            f"{path} reads texts as {len(other):,} kinds of tokens, and these data have "
            f"{len(vocab):,}, which are others{example}: its vectors would stand for other words. "
            "Name the data that it learnt from; or, where they take one, let these be read with "
            f"its tokenizer: --data.tokenizer {path}."
        )


def _class_path(description: Any) -> str:
    return description.get("class_path", "") if isinstance(description, dict) else ""
