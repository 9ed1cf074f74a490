"""Read checkpoints of unknown origin: plain data only, and the expected task and network."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from tokenizers import Tokenizer

from engine.checkpoint.base_weights import (
    STATES,
    base_name,
    frozen_parameters,
    load_base_weights,
)
from engine.checkpoint.sharded import check_complete, is_sharded, read_sharded
from engine.errors import UserError
from engine.renamed import upgrade_hyperparameters

Task = TypeVar("Task", bound=L.LightningModule)
INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"
ADVICE = {  # what to do with a checkpoint of a task that was not expected
    "Translator": (
        " To translate, run `python train.py predict --config RUN_FOLDER/config.yaml "
        "--ckpt_path CHECKPOINT --data.predict FILE`, or call its `translate(texts)` in Python."
    )
}
MAGIC = (b"PK", b"\x80")  # first bytes of a zip file, as torch writes it, and of a plain pickle


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a Lightning checkpoint onto the CPU without executing code from it.

    Of a sharded checkpoint (a folder), load weights and hyper-parameters. Old names of classes and
    arguments are replaced by the current ones.

    Raises:
        UserError: If the file is missing, is not a checkpoint, or holds more than plain data.
    """
    path = Path(path)
    if is_sharded(path):
        return read_sharded(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint at {path}.")
    with path.open("rb") as file:
        if not file.read(4).startswith(MAGIC):
            raise UserError(f"{path} is not a checkpoint.")
    try:
        with warnings.catch_warnings(action="ignore"):  # suspicious content is refused below
            checkpoint = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error):
            raise UserError(
                f"{path} is refused: loading it would execute code from the file. Checkpoints of "
                "stepladder hold plain data only."
            ) from error
        raise UserError(f"{path} is not a checkpoint.") from error
    except Exception as error:  # the unpickler raises anything on a file of unknown origin
        raise UserError(f"{path} is not a checkpoint, or is damaged: {error}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"{path} is not a checkpoint of a LightningModule: it has no state_dict.")
    upgrade_hyperparameters(checkpoint)
    return checkpoint


def load_task(path: str | Path, kind: type[Task], made_by: str) -> Task:
    """Rebuild a task from its checkpoint alone, in eval mode on the CPU.

    Args:
        path: The checkpoint, a single file.
        kind: Expected class of the task.
        made_by: Configs that train such a task, for the error message.

    Raises:
        UserError: If the checkpoint holds another task, or does not fit this version.
    """
    if is_sharded(Path(path)):
        raise UserError(
            f"{path} is a sharded checkpoint; convert it into a single file with python export.py "
            f"--checkpoint {path} --format checkpoint --output FOLDER."
        )
    saved = read_checkpoint(path).get("hyper_parameters", {})
    class_path = saved.get("_class_path", "")
    name = class_path.rpartition(".")[2]
    if name != kind.__name__:
        found = f"the task {class_path}" if class_path else "an unnamed task"
        raise UserError(
            f"{path} holds {found}, expected modules.{kind.__name__}: pass a checkpoint that "
            f"train.py made with {made_by}.{ADVICE.get(name, '')}"
        )
    instantiator = saved.get("_instantiator", "")  # a function that Lightning imports and calls
    if instantiator != INSTANTIATOR:
        raise UserError(
            f"{path} is refused: it would be instantiated by {instantiator or 'nothing known'}."
        )
    try:
        # Lightning reads the file again; it builds a task from a path only.
        model = kind.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    except (RuntimeError, TypeError, ValueError) as error:  # of torch and jsonargparse
        raise UserError(f"{path} does not fit this version of its network: {error}") from error
    return model.eval()


def check_checkpoint(path: str | Path) -> None:
    """Check that a checkpoint is complete; a folder is not read entirely.

    Raises:
        UserError: As `read_checkpoint`.
    """
    if is_sharded(Path(path)):
        check_complete(Path(path))
    else:
        read_checkpoint(path)


def check_fits(checkpoint: dict[str, Any], task: L.LightningModule, path: str | Path) -> None:
    """Check that a checkpoint has the tokens, classes, network and weights of a task.

    Raises:
        UserError: Naming the first difference.
    """
    saved = checkpoint.get("hyper_parameters", {})
    _check_same_tokens(checkpoint, task, path)
    names, ours = saved.get("class_names"), task.hparams.get("class_names")
    if names and ours and list(names) != list(ours):
        raise UserError(
            f"{path} was trained on the classes {_abbreviate(names)}, but these data have "
            f"{_abbreviate(ours)}, in this order. Use the data that it was trained on."
        )
    for what, expected, found in (
        ("task", type(task).__name__, saved.get("_class_path", "")),
        ("network", type(getattr(task, "net", None)).__name__, _class_path(saved.get("net"))),
    ):
        if found and found.rpartition(".")[2] != expected:
            raise UserError(f"{path} holds the {what} {found}, but the config has {expected}.")
    weights = task.state_dict()
    for name in [*weights, *checkpoint["state_dict"]]:
        pair = weights.get(name), checkpoint["state_dict"].get(name)
        shapes = [None if weight is None else tuple(weight.shape) for weight in pair]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{path} does not fit the config: {name} is {shapes[1] or 'missing'} in the "
                f"checkpoint and {shapes[0] or 'missing'} in the network. Use the config.yaml of "
                "its run."
            )


def init_from(path: str | Path, task: L.LightningModule) -> None:
    """Initialize a task with the weights of a checkpoint whose name and shape agree.

    Other weights, of a new head for instance, keep their initialization; a warning names them and
    the unused weights of the checkpoint.

    Raises:
        UserError: If it cannot be read, no weight agrees, or its tokens differ.
    """
    checkpoint = read_checkpoint(path)
    _check_same_tokens(checkpoint, task, path)
    if "base" in checkpoint:
        _init_from_adapter(checkpoint, task, path)
        return
    adapter = getattr(task, "adapter", None)
    if getattr(adapter, "needs_pretrained", False):
        raise UserError(
            f"--init_from: {type(adapter).__name__} quantizes the weights that the network loads "
            f"itself. Export {path} with --format huggingface, set --model.net.pretrained to that "
            "folder and leave out --init_from; or use modules.adapters.LoRA."
        )
    found = checkpoint["state_dict"]
    weights = {base_name(name): weight for name, weight in task.state_dict().items()}
    fitting = {n: w for n, w in found.items() if n in weights and weights[n].shape == w.shape}
    if not fitting:
        saved = checkpoint.get("hyper_parameters", {})
        theirs = " with ".join(
            filter(None, (saved.get("_class_path"), _class_path(saved.get("net"))))
        )
        raise UserError(
            f"--init_from: no weight of {path} has the name and shape of a weight of this "
            f"{type(getattr(task, 'net', task)).__name__}: the networks differ. The checkpoint "
            f"holds {theirs or 'an unnamed task'}."
        )
    if adapter is None:
        task.load_state_dict(fitting, strict=False)
    else:
        load_base_weights(task, fitting, str(path), fitting)
    fresh = [
        f"{name} ({tuple(found[name].shape)} in the checkpoint, {tuple(weights[name].shape)} here)"
        if name in found
        else name
        for name in sorted(weights.keys() - fitting.keys() - getattr(task, "adapter_names", set()))
    ]
    if fresh:
        unused = sorted(found.keys() - weights.keys())
        rest = f"; unused weights: {_abbreviate(unused)}" if unused else ""
        rank_zero_warn(
            f"--init_from: {len(fitting)} of {len(weights)} weights are from {path}; newly "
            f"initialized: {_abbreviate(fresh)}{rest}."
        )


def _init_from_adapter(
    checkpoint: dict[str, Any], task: L.LightningModule, path: str | Path
) -> None:
    """Initialize a task with the checkpoint of an adapter of the same shape, and with its base."""
    weights = task.state_dict()
    for name, found in checkpoint["state_dict"].items():
        if name not in weights or weights[name].shape != found.shape:
            raise UserError(
                f"--init_from: {path} holds an adapter that this task does not have: {name} is "
                f"{tuple(found.shape)} there. Choose the same --model.adapter and arguments, or "
                f"merge it into its base first: python export.py --checkpoint {path} --format "
                "checkpoint --merge --output FOLDER."
            )
    restore_base(task, checkpoint)
    task.load_state_dict(checkpoint["state_dict"])


def restore_base(task: L.LightningModule, checkpoint: dict[str, Any]) -> None:
    """Give a task the base of an adapter's checkpoint, and add its weights to the checkpoint.

    Args:
        task: A task built from the hyper-parameters of the checkpoint.
        checkpoint: The checkpoint; its states become complete.

    Raises:
        UserError: If the base is missing or has changed.
    """
    base = checkpoint.get("base")
    if base is None:
        return
    if "checkpoint" in base and base != getattr(task, "base", None):
        path = base["checkpoint"]
        try:
            weights = read_checkpoint(path)["state_dict"]
        except UserError as error:
            raise UserError(
                f"an adapter's checkpoint needs its base: {error} Run the command from the folder "
                "in which the adapter was trained, or put the base at this path."
            ) from error
        saved = {base_name(name) for name in checkpoint["state_dict"]}
        names = {base_name(name) for name in task.state_dict()} - saved
        if missing := names - weights.keys():
            raise UserError(_changed(base, f"it has no {min(missing)}"))
        load_base_weights(task, weights, path, names)
    found = getattr(task, "base", None) or {"sha256": "none"}
    if found["sha256"] != base["sha256"]:
        raise UserError(_changed(base, f"SHA-256 {found['sha256'][:12]}"))
    frozen = frozen_parameters(task)
    for key in set(STATES) & set(checkpoint):
        checkpoint[key] = {**frozen, **checkpoint[key]}


def _changed(base: Mapping[str, str], found: str) -> str:
    source = base.get("checkpoint") or base.get("pretrained")
    return (
        f"an adapter's checkpoint was trained on other weights than {source} holds now: expected "
        f"SHA-256 {base['sha256'][:12]}, found {found}. Restore that file, or train the adapter "
        "again."
    )


def _abbreviate(names: list[str]) -> str:
    return f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}"


def _check_same_tokens(
    checkpoint: dict[str, Any], task: L.LightningModule, path: str | Path
) -> None:
    """Check that token ids mean the same tokens in a checkpoint and in the data."""
    saved = checkpoint.get("hyper_parameters", {})
    for name in ("tokenizer", "source_tokenizer", "target_tokenizer"):
        theirs, ours = saved.get(name), task.hparams.get(name)
        if not isinstance(theirs, str) or not isinstance(ours, str) or theirs == ours:
            continue
        vocab, other = (Tokenizer.from_str(text).get_vocab() for text in (ours, theirs))
        differ = [token for token in sorted(other) if other[token] != vocab.get(token)]
        if vocab == other:
            continue
        example = f" ({differ[0]!r} for instance)" if differ else ""
        raise UserError(
            f"{path} was trained with another vocabulary: {len(other):,} tokens, these data have "
            f"{len(vocab):,}, and ids differ{example}. Use the data that it was trained on; or, "
            f"where the data take one, its tokenizer: --data.tokenizer {path}."
        )


def _class_path(description: Any) -> str:
    return description.get("class_path", "") if isinstance(description, dict) else ""
