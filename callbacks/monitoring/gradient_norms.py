"""Log the gradient norm of each part of the network."""

import re

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from engine.run.layers import l2_norm, remaining_loss_scale, trainable_layers
from engine.run.step_metrics import log_step, step_is_logged

Groups = dict[str, list[nn.Parameter]]


class GradientNorms(Callback):
    """Log L2 norms of the gradient every `trainer.log_every_n_steps`.

    | name | meaning |
    | --- | --- |
    | `grad_norm/<group>` | norm of the gradient of the group's parameters |
    | `grad_norm/total` | norm over all parameters of the optimizer that takes the step |

    A group is a block (`blocks.3`), a layer of a list (`features.0`) or another direct child of the
    network (`head`); for single layers see `callbacks.LayerHealth`. The gradient is that of all
    accumulated batches and processes, before clipping and unscaled under float16; that of a
    LanguageModel is taken before its correction for padding. Strategies that own the gradients
    (DeepSpeed) log nothing.
    """

    def __init__(self) -> None:
        self._groups: Groups = {}
        self._groups_by_optimizer: dict[int, Groups] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._groups, self._groups_by_optimizer = parameter_groups(pl_module), {}

    def _groups_of(self, optimizer: torch.optim.Optimizer) -> Groups:
        if id(optimizer) not in self._groups_by_optimizer:
            own = {id(p) for group in optimizer.param_groups for p in group["params"]}
            self._groups_by_optimizer[id(optimizer)] = {
                name: [p for p in parameters if id(p) in own]
                for name, parameters in self._groups.items()
            }
        return self._groups_by_optimizer[id(optimizer)]

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if not step_is_logged(trainer):
            return
        norms: dict[str, Tensor] = {}
        for name, parameters in self._groups_of(optimizer).items():
            if gradients := [p.grad for p in parameters if p.grad is not None]:
                norms[f"grad_norm/{name}"] = l2_norm(gradients)
        if not norms:
            return
        values = torch.stack([*norms.values()])  # (groups,)
        values = torch.cat([values, values.norm()[None]]) / remaining_loss_scale(trainer, optimizer)
        names = [*norms, "grad_norm/total"]
        log_step(trainer, dict(zip(names, values.tolist(), strict=True)))  # one device sync


def parameter_groups(task: nn.Module) -> Groups:
    """Group trainable parameters by their layer's name up to its first number."""
    groups: Groups = {}
    for layer, parameters in trainable_layers(task).items():
        prefix = re.match(r"(?:[^.]+\.)*?\d+(?=\.|$)|[^.]+", layer)
        groups.setdefault(prefix[0] if prefix else layer, []).extend(parameters)
    return groups
