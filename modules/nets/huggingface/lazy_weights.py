"""Models of transformers whose weights are read from their files when they are needed."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modules.nets.huggingface.folder import read_tensor, report_names, tensor_files

Readers = dict[str, Callable[[], Tensor]]  # name of a weight of a model → its tensor, in float32


def build_on_meta_device(config: Any, auto_class: str) -> Any:
    """Return the model of a config with parameters on the meta device, which has no memory."""
    import transformers
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        model = getattr(transformers, auto_class).from_config(config, dtype=torch.float32)
    model.tie_weights()  # parameters were replaced one by one
    return model


def weight_readers(model: Any, folder: Path) -> Readers:
    """Return a function for each weight of a model that reads it from a folder.

    Raises:
        OSError: If a file is missing.
        ValueError: If a file is damaged, the index disagrees, or weights are missing or unexpected.
    """
    files, prefix = tensor_files(folder), f"{model.base_model_prefix}."
    # A folder of the model without its head has no prefix.
    found = {(n if n in files else n.removeprefix(prefix)): n for n in model.state_dict()}
    tied = {*model.state_dict()} - {name for name, _ in model.named_parameters()}
    ours = [name for name, _ in model.named_parameters()]
    theirs = {ours: name for name, ours in found.items()}
    wrong = {
        "no weights for": sorted(name for name in ours if theirs[name] not in files),
        "unexpected weights": sorted(
            n for n in files if n not in found and not n.endswith("inv_freq")
        ),
    }
    report_names(
        folder, {what: [n for n in names if n not in tied] for what, names in wrong.items()}
    )
    return {n: partial(_read, files[theirs[n]], theirs[n]) for n in ours}


def _read(path: Path, name: str) -> Tensor:
    # A copy: a tensor of the file would keep all of it mapped.
    return read_tensor(path, name).to(torch.float32, copy=True)


def read_when_used(model: nn.Module, blocks: Iterable[nn.Module], readers: Readers) -> None:
    """Read the weights of each block before its forward pass and drop them afterwards.

    Args:
        model: A model on the meta device; its other weights are read now.
        blocks: Some of its submodules.
        readers: A function for each weight of the model.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for block in blocks:
        own = {name: readers.pop(names[id(p)]) for name, p in block.named_parameters()}
        block.requires_grad_(False)
        _Offloaded(block, own)
    for name, read in readers.items():
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, nn.Parameter(read(), requires_grad=False))
    tie: Any = getattr(model, "tie_weights", None)
    if tie is not None:
        tie()


class _Offloaded:
    """Hooks that hold the weights of a block during its forward pass only."""

    def __init__(self, block: nn.Module, readers: Readers) -> None:
        self.readers = readers
        self.empty = dict(block.named_parameters())
        block.register_forward_pre_hook(self._load)
        block.register_forward_hook(self._drop, always_call=True)

    def _load(self, block: nn.Module, inputs: Any) -> None:
        weights = {name: read() for name, read in self.readers.items()}
        block.load_state_dict(weights, strict=False, assign=True)

    def _drop(self, block: nn.Module, inputs: Any, output: Any) -> None:
        block.load_state_dict(self.empty, strict=False, assign=True)
