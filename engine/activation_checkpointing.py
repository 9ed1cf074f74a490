"""Activation checkpointing: compute activations again in the backward pass instead of saving them.

Chen et al. 2016, "Training deep nets with sublinear memory cost". A block saves its inputs only,
and runs its forward pass a second time before its backward pass. The random numbers of dropout are
the same in both, so the gradients are, too. Selective checkpointing (Korthikanti et al. 2022) also
saves what is expensive to compute again, the outputs of linear layers and of fused attention, and
recomputes norms, activation functions, dropout and eager attention.
"""

from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

Mode = Literal["full", "selective"]
aten = torch.ops.aten
LINEAR = {aten.mm.default, aten.addmm.default}
ATTENTION = {  # operator → position of dropout_p, whose random numbers must be drawn again
    aten._scaled_dot_product_flash_attention_for_cpu.default: 3,  # noqa: SLF001 names of operators
    aten._scaled_dot_product_flash_attention.default: 3,  # noqa: SLF001
    aten._scaled_dot_product_efficient_attention.default: 5,  # noqa: SLF001
    aten._scaled_dot_product_cudnn_attention.default: 5,  # noqa: SLF001
}


def checkpoint_activations(net: nn.Module, mode: Mode = "full", every: int = 1) -> list[nn.Module]:
    """Checkpoint the activations of a network's blocks in place; names of weights do not change.

    Args:
        net: A network with blocks, see `find_blocks`.
        mode: "full" saves the inputs of a block only, "selective" also the outputs of its linear
            layers and of fused attention.
        every: Checkpoint every n-th block, starting with the first.

    Returns:
        The blocks that are checkpointed.
    """
    blocks = find_blocks(net)[::every]
    for block in blocks:
        if not isinstance(block, _Checkpointed):
            cls = type(block)
            # A subclass, as fully_shard makes one: hooks and names of the block do not change.
            members = {"__module__": cls.__module__}
            block.__class__ = type(cls.__name__, (_Checkpointed, cls), members)
        block.checkpoint_mode = mode  # type: ignore[assignment]
    return blocks


def remove_checkpointing(net: nn.Module) -> None:
    """Save all activations again."""
    for module in net.modules():
        if isinstance(module, _Checkpointed):
            module.checkpoint_mode = None


def find_blocks(net: nn.Module) -> list[nn.Module]:
    """Return the blocks of a network: the members of its nn.ModuleLists that contain layers.

    Lists within a block belong to the block.
    """
    if isinstance(net, nn.ModuleList):
        return [block for block in net if any(True for _ in block.children())]
    return [block for child in net.children() for block in find_blocks(child)]


class _Checkpointed(nn.Module):
    """A block whose activations are recomputed, with its hooks, where gradients are needed."""

    checkpoint_mode: Mode | None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.checkpoint_mode is None or not torch.is_grad_enabled():
            return super().__call__(*args, **kwargs)
        options: dict[str, Any] = {}
        if self.checkpoint_mode == "selective":
            options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
        return checkpoint(super().__call__, *args, use_reentrant=False, **options, **kwargs)


def _policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    save = operator in LINEAR
    if operator in ATTENTION:
        position = ATTENTION[operator]
        save = not (args[position] if len(args) > position else kwargs.get("dropout_p", 0.0))
    return CheckpointPolicy.MUST_SAVE if save else CheckpointPolicy.PREFER_RECOMPUTE
