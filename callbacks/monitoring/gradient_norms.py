"""How long the gradient is, in each group of layers."""

import re

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from callbacks.monitoring.layer_health import layers_of, length, scale_left_in_gradients
from engine.run.step_metrics import log_step, step_is_logged


class GradientNorms(Callback):
    """Logs the length of a step's gradient, every `trainer.log_every_n_steps`.

    | name | what it is |
    | --- | --- |
    | `grad_norm/<group>` | length of the gradient of the group's parameters as one vector |
    | `grad_norm/total` | that of all parameters of the optimizer that takes the step |

    A group is a part of the net: a block (`blocks.3`), a layer of a list (`features.0`), or what
    stands by itself (`head`). `callbacks.LayerHealth` looks into each layer. The gradient is that
    of all accumulated batches and processes, before clipping, under float16 unscaled; a
    LanguageModel's is seen before its correction for padding. Where a strategy keeps gradients to
    itself (DeepSpeed), nothing is logged.
    """

    def __init__(self) -> None:
        self._groups: dict[str, list[nn.Parameter]] = {}
        self._of: dict[int, dict[str, list[nn.Parameter]]] = {}  # the same for each optimizer

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._groups, self._of = groups_of(pl_module), {}

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if not step_is_logged(trainer):
            return
        if id(optimizer) not in self._of:
            own = {id(p) for group in optimizer.param_groups for p in group["params"]}
            parts = {
                name: [p for p in parameters if id(p) in own]
                for name, parameters in self._groups.items()
            }
            self._of[id(optimizer)] = {name: part for name, part in parts.items() if part}
        found: dict[str, Tensor] = {}
        for name, parameters in self._of[id(optimizer)].items():
            gradients = [p.grad for p in parameters if p.grad is not None]
            if gradients:
                found[name] = length(gradients)
        if not found:
            return
        norms = torch.stack(list(found.values()))  # (groups,)
        norms = torch.cat([norms, norms.norm()[None]]) / scale_left_in_gradients(trainer, optimizer)
        names = [f"grad_norm/{name}" for name in (*found, "total")]
        values = norms.tolist()  # the device is waited for once
        log_step(trainer, dict(zip(names, values, strict=True)))


def groups_of(task: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Name and trainable parameters of each part of a net: up to the first number in their name."""
    groups: dict[str, list[nn.Parameter]] = {}
    for layer, parameters in layers_of(task).items():
        name = re.match(r"(?:[^.]+\.)*?\d+(?=\.|$)|[^.]+", layer)
        groups.setdefault(name[0] if name else layer, []).extend(parameters)
    return groups
