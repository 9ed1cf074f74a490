"""Read sharded checkpoints, folders that several processes wrote, in one process.

There are two formats: that of torch.distributed.checkpoint, written by
`engine.distributed.ModelParallel` with `save_distributed_checkpoint`, and that of DeepSpeed.
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

from engine.errors import UserError
from engine.renamed import upgrade_hyperparameters

TORCH_INDEX, LIGHTNING_FILE = ".metadata", "meta.pt"
DEEPSPEED_INDEX = "latest"  # holds the name of the subfolder
# Content that evaluation, fine-tuning and inference need; resuming needs the folder itself.
KEYS = (
    *("state_dict", "hyper_parameters", "hparams_name"),
    *("epoch", "global_step", "pytorch-lightning_version"),
    "base",  # of an adapter
)


def checkpoint_format(path: Path) -> str:
    """Return `torch` or `deepspeed` for a sharded checkpoint, damaged or not, otherwise `file`."""
    if (path / DEEPSPEED_INDEX).is_file():
        return "deepspeed"
    return "torch" if (path / TORCH_INDEX).is_file() else "file"


def is_sharded(path: Path) -> bool:
    return checkpoint_format(path) != "file"


def check_complete(folder: Path) -> None:
    """Check, without reading everything, that the shards of all processes are there.

    Raises:
        UserError: Naming what is missing.
    """
    if (folder / DEEPSPEED_INDEX).is_file():
        _deepspeed_files(folder)
        return
    if not (folder / LIGHTNING_FILE).is_file():
        raise UserError(f"{folder} is not a checkpoint: {LIGHTNING_FILE} is missing.")
    ends: dict[str, int] = {}
    for entry in _index(folder).storage_data.values():
        end = entry.offset + entry.length
        ends[entry.relative_path] = max(ends.get(entry.relative_path, 0), end)
    for name, end in ends.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size < end:
            raise UserError(f"{folder} is incomplete: {name} is missing or too short.")


def read_sharded(folder: Path) -> dict[str, Any]:
    """Return weights and hyper-parameters as in a single-file checkpoint, without the optimizer.

    The torch format cannot execute code. DeepSpeed reads its own files with pickle: use those of a
    trusted source only.

    Raises:
        UserError: If something is missing or damaged.
    """
    check_complete(folder)
    try:
        read = _read_torch if (folder / TORCH_INDEX).is_file() else _read_deepspeed
        checkpoint = read(folder)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{folder} is a damaged checkpoint: {error}") from error
    upgrade_hyperparameters(checkpoint)
    return checkpoint


@contextmanager
def as_single_file(path: Path) -> Iterator[Path]:
    """Yield the path of a single-file checkpoint: the given one, or a temporary conversion."""
    if not is_sharded(path):
        yield path
        return
    with TemporaryDirectory() as folder:
        copy = Path(folder, "model.ckpt")
        torch.save(read_sharded(path), copy)
        yield copy


# Format of torch.distributed.checkpoint.


class _IndexUnpickler(pickle.Unpickler):
    """Unpickle only the classes of such an index; any other could execute code."""

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
    except Exception as error:  # the unpickler raises anything on a file of unknown origin
        raise UserError(f"{folder} is a damaged checkpoint: {error}") from error


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
    with warnings.catch_warnings(action="ignore"):  # that no process group is initialized
        load(weights, storage_reader=Reader(folder), no_dist=True)
    content = torch.load(folder / LIGHTNING_FILE, map_location="cpu", weights_only=True)
    state = {name.removeprefix("state_dict."): weight for name, weight in weights.items()}
    return {"state_dict": state} | {key: content[key] for key in KEYS[1:] if key in content}


# Format of DeepSpeed.


def _deepspeed_files(folder: Path) -> list[Path]:
    """Return the files with the weights; they also hold what Lightning and the task saved."""
    inner = folder / (folder / DEEPSPEED_INDEX).read_text().strip()
    models = sorted(inner.glob("*model_states.pt"))
    optimizers = sorted(inner.glob("*_optim_states.pt"))
    if not models or not optimizers:
        raise UserError(
            f"{folder} is an incomplete checkpoint of DeepSpeed: {inner} lacks "
            f"{'*_optim_states.pt' if models else '*model_states.pt'}."
        )
    return models


def _read_deepspeed(folder: Path) -> dict[str, Any]:
    try:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
    except ImportError as error:
        raise UserError(
            f"{folder} was written by DeepSpeed, which is not installed: "
            "pip install 'deepspeed>=0.17'."
        ) from error
    models = _deepspeed_files(folder)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # progress messages
        state = get_fp32_state_dict_from_zero_checkpoint(folder)
    content = torch.load(models[0], map_location="cpu", weights_only=False)
    full = {name: weight.clone() for name, weight in state.items()}
    return {"state_dict": full} | {key: content[key] for key in KEYS[1:] if key in content}
