"""Parameters of a network by layer, and norms of their gradients."""

import math
from collections.abc import Iterable

import torch
from lightning import Trainer
from torch import Tensor, nn


def layer_name(module_name: str) -> str:
    """Return a module's name within the network; `task` for the LightningModule itself."""
    return module_name.removeprefix("net.") or "task"


def trainable_layers(task: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return the trainable parameters that each module owns; tied parameters count once."""
    seen: set[int] = set()
    layers: dict[str, list[nn.Parameter]] = {}
    for name, module in task.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.requires_grad and id(p) not in seen]
        seen |= {id(p) for p in own}
        if own:
            layers[layer_name(name)] = own
    return layers


def l2_norm(tensors: Iterable[Tensor]) -> Tensor:
    """Return the L2 norm of all tensors concatenated, in float32; NaN if there are none."""
    norms = [torch.linalg.vector_norm(t.detach().float()) for t in tensors]
    # The norm of a sharded parameter (DTensor) is reduced over all processes.
    full = [n.full_tensor() if hasattr(n, "full_tensor") else n for n in norms]
    return torch.stack(full).norm() if full else torch.tensor(math.nan)


def remaining_loss_scale(trainer: Trainer, optimizer: torch.optim.Optimizer) -> float:
    """Return the factor of float16's loss scaling in `p.grad`; fused optimizers unscale later."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    unscales = getattr(optimizer, "_step_supports_amp_scaling", False)
    return float(scaler.get_scale()) if scaler is not None and unscales else 1.0
