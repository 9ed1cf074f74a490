"""Reading checkpoints that several processes wrote into one folder: as one, on one machine.

Two kinds: those of `engine.distributed.ModelParallel` with `save_distributed_checkpoint`, written by
torch.distributed.checkpoint; and DeepSpeed's.
"""

import io
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from engine.renamed import upgrade_hyperparameters

TORCH_INDEX, LIGHTNING_FILE = ".metadata", "meta.pt"
DEEPSPEED_INDEX = "latest"  # holds the name of the folder within
# What a checkpoint needs to be tested, continued from and used; not to resume its run.
KEPT = (
    *("state_dict", "hyper_parameters", "hparams_name"),
    *("epoch", "global_step", "pytorch-lightning_version"),
)


def kind_of(path: Path) -> str:
    """`torch` or `deepspeed` for such a folder, damaged or not, and `file` for all else."""
    if (path / DEEPSPEED_INDEX).is_file():
        return "deepspeed"
    return "torch" if (path / TORCH_INDEX).is_file() else "file"


def is_sharded(path: Path) -> bool:
    return kind_of(path) != "file"


def check_complete(folder: Path) -> None:
    """Make sure, without reading it all, that every process wrote its share.

    Raises:
        MisconfigurationException: Naming what is missing.
    """
    if (folder / DEEPSPEED_INDEX).is_file():
        _deepspeed_files(folder)
        return
    if not (folder / LIGHTNING_FILE).is_file():
        raise MisconfigurationException(f"{folder} is no checkpoint: {LIGHTNING_FILE} is missing.")
    ends: dict[str, int] = {}
    for place in _index(folder).storage_data.values():
        ends[place.relative_path] = max(
            ends.get(place.relative_path, 0), place.offset + place.length
        )
    for name, end in ends.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size < end:
            raise MisconfigurationException(
                f"{folder} is no whole checkpoint: {name} is missing or too short."
            )


def read_sharded(folder: Path) -> dict[str, Any]:
    """Weights and hyper-parameters as a checkpoint in one file has them; no optimizer.

    Nothing that torch wrote can run code here. DeepSpeed reads its own files with pickle: take
    them from those whom you trust.

    Raises:
        MisconfigurationException: If something is missing or damaged.
    """
    check_complete(folder)
    try:
        read = _read_torch if (folder / TORCH_INDEX).is_file() else _read_deepspeed
        checkpoint = read(folder)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise MisconfigurationException(f"{folder} is a damaged checkpoint: {error}") from error
    upgrade_hyperparameters(checkpoint)
    return checkpoint


@contextmanager
def as_single_file(path: Path) -> Iterator[Path]:
    """The path of a checkpoint that is a file: the same, or that of a copy for the time being."""
    if not is_sharded(path):
        yield path
        return
    with TemporaryDirectory() as folder:
        copy = Path(folder, "model.ckpt")
        torch.save(read_sharded(path), copy)
        yield copy


# torch.distributed.checkpoint.


class _IndexUnpickler(pickle.Unpickler):
    """Knows what such an index is made of and nothing else: other pickles could run any code."""

    def find_class(self, module: str, name: str) -> Any:
        plain = (module, name) in {
            ("collections", "OrderedDict"),
            ("pathlib", "PosixPath"),
            ("pathlib", "PurePosixPath"),
            ("torch", "Size"),
            ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
            ("torch.serialization", "_get_layout"),
        }
        part = module == "torch.distributed.checkpoint.metadata" and "." not in name
        if plain or part or (module == "torch" and isinstance(getattr(torch, name), torch.dtype)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{TORCH_INDEX} asks for {module}.{name}")


def _index(folder: Path) -> Any:
    try:
        with (folder / TORCH_INDEX).open("rb") as file:
            return _IndexUnpickler(file).load()
    except Exception as error:  # in a file of unknown origin the unpickler may meet anything
        raise MisconfigurationException(f"{folder} is a damaged checkpoint: {error}") from error


def _read_torch(folder: Path) -> dict[str, Any]:
    from torch.distributed.checkpoint import FileSystemReader, load
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    class Reader(FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
            return _index(folder)

    weights = {
        name: torch.empty(stored.size, dtype=stored.properties.dtype)
        for name, stored in sorted(_index(folder).state_dict_metadata.items())
        if name.startswith("state_dict.") and isinstance(stored, TensorStorageMetadata)
    }
    with warnings.catch_warnings(action="ignore"):  # that this is one process, which is meant
        load(weights, storage_reader=Reader(folder), no_dist=True)
    content = torch.load(folder / LIGHTNING_FILE, map_location="cpu", weights_only=True)
    state = {name.removeprefix("state_dict."): weight for name, weight in weights.items()}
    return {"state_dict": state} | {key: content[key] for key in KEPT[1:] if key in content}


# DeepSpeed.


def _deepspeed_files(folder: Path) -> list[Path]:
    """The files with the weights, and with them what Lightning and the task wrote."""
    inner = folder / (folder / DEEPSPEED_INDEX).read_text().strip()
    models = sorted(inner.glob("*model_states.pt"))
    shares = sorted(inner.glob("*_optim_states.pt"))
    if not models or not shares:
        raise MisconfigurationException(
            f"{folder} is no whole checkpoint of DeepSpeed: {inner} lacks "
            f"{'*_optim_states.pt' if models else '*model_states.pt'}."
        )
    return models


def _read_deepspeed(folder: Path) -> dict[str, Any]:
    try:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
    except ImportError as error:
        raise MisconfigurationException(
            f"{folder} was written by DeepSpeed, which is not installed here: "
            "pip install 'deepspeed>=0.17'."
        ) from error
    models = _deepspeed_files(folder)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # it tells each step
        state = get_fp32_state_dict_from_zero_checkpoint(folder)
    content = torch.load(models[0], map_location="cpu", weights_only=False)
    whole = {name: weight.clone() for name, weight in state.items()}
    return {"state_dict": whole} | {key: content[key] for key in KEPT[1:] if key in content}
