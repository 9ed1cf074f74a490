"""Recompute activations in the backward pass instead of saving them: less memory, slower steps."""

import lightning as L
from torch import nn

from engine.activation_checkpointing import Mode, checkpoint_activations
from engine.errors import UserError


class ActivationCheckpointing(L.Callback):
    """Checkpoint the activations of a network's blocks (Chen et al. 2016); gradients are the same.

    The blocks are the members of the network's nn.ModuleLists, as in all Transformers here and in
    those of transformers. `python -m benchmarks.memory` says what it saves.

    Args:
        mode: "full" saves the inputs of a block only. "selective" also saves the outputs of its
            linear layers and of fused attention, so that little is computed again.
        every: Checkpoint every n-th block, starting with the first.

    Raises:
        UserError: If `every` is below 1, or, at the start of fit, if the network has no blocks.
    """

    def __init__(self, mode: Mode = "full", every: int = 1) -> None:
        if every < 1:
            raise UserError(f"ActivationCheckpointing: every must be at least 1, got {every}.")
        self.mode = mode
        self.every = every

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        net = getattr(pl_module, "net", None)
        if not isinstance(net, nn.Module) or not checkpoint_activations(net, self.mode, self.every):
            raise UserError(
                f"trainer.callbacks: ActivationCheckpointing: {type(net or pl_module).__name__} "
                "has no blocks (members of an nn.ModuleList) whose activations could be "
                "recomputed: remove the callback."
            )
