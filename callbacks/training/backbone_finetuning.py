"""Transfer in two stages: the new head learns alone, then the backbone joins at a lower rate."""

from typing import Any

import lightning as L
from lightning.pytorch import callbacks
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # noqa: PLC2701  # base of BatchNorm1d, 2d, 3d
from torch.optim import Optimizer

RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # what an optimizer's group may hold


class BackboneFinetuning(callbacks.BackboneFinetuning):
    """Lightning's BackboneFinetuning, for schedules, weight decay, and runs that go on.

    A new head begins with random weights, and its first gradients would spoil what the pretrained
    layers know. So they are frozen for some epochs; then they learn too, at a fraction of the
    head's rate that grows from epoch to epoch until the rates are the same:

        rate of the backbone = min(1, ratio · growth^(epoch - unfreeze_at_epoch)) · rate of the head

    Where the parent adds the backbone as one group at a rate of its own, here its matrices join
    with the settings of the head's matrices and its vectors (biases, norms) with those of the
    head's vectors, so they are decayed, or not, as these; and the schedule moves them all. The
    parent keeps norms learning while all else is frozen, and forgets, in a run that goes on, that
    the backbone was learning. The task must have a `backbone`, and one optimizer.

    Args:
        unfreeze_at_epoch: First epoch, counted from 0, in which the backbone learns.
        ratio: Its rate then, as a fraction of the head's, in (0, 1].
        growth: Factor of that fraction from one epoch to the next, at least 1.
        train_norms: Let the backbone's batch norms learn with it, and their statistics follow the
            new pictures. Else they stay as they came: means of a few small batches are worse.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self,
        unfreeze_at_epoch: int = 3,
        ratio: float = 0.1,
        growth: float = 1.0,
        train_norms: bool = False,
    ) -> None:
        for complaint, justified in {
            f"unfreeze_at_epoch must be 0 or more, not {unfreeze_at_epoch}": unfreeze_at_epoch < 0,
            f"ratio must be above 0 and at most 1, not {ratio}": not 0 < ratio <= 1,
            f"growth must be 1 or more, not {growth}": growth < 1,
        }.items():
            if justified:
                raise ValueError(f"BackboneFinetuning: {complaint}.")
        super().__init__(
            unfreeze_backbone_at_epoch=unfreeze_at_epoch,
            backbone_initial_ratio_lr=ratio,
            train_bn=train_norms,
        )
        self.growth = growth
        self.unfrozen = False
        self.joined: dict[int, int] = {}  # group of the backbone → the head's group that it follows

    # What is frozen.

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if not isinstance(getattr(pl_module, "backbone", None), nn.Module):
            net = type(getattr(pl_module, "net", pl_module)).__name__
            raise MisconfigurationException(
                f"BackboneFinetuning: {net} does not say what its backbone is. Take a net with "
                "pretrained layers, modules.nets.TorchvisionNet, or give yours a property "
                "`backbone`; or leave the callback out."
            )
        if trainer.world_size > 1 and not isinstance(trainer.strategy, DDPStrategy):
            raise MisconfigurationException(
                "BackboneFinetuning takes one process or --trainer.strategy ddp: others shard what "
                "is frozen, and can't take it up later."
            )
        self.unfrozen, self.joined = False, {}  # of a fit before this one
        super().setup(trainer, pl_module, stage)

    def freeze_before_training(self, pl_module: L.LightningModule) -> None:
        backbone: Any = pl_module.backbone
        backbone.requires_grad_(False)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._rest_norms(pl_module)

    def _norms(self, pl_module: L.LightningModule) -> list[nn.Module]:
        backbone: Any = pl_module.backbone
        return [module for module in backbone.modules() if isinstance(module, _BatchNorm)]

    def _rest_norms(self, pl_module: L.LightningModule) -> None:
        """Norms that do not learn normalise by what they know, and not by the batch."""
        for norm in self._norms(pl_module):
            norm.train(self.unfrozen and self.train_bn)

    # How it joins.

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A function of the epoch alone: a run that goes on may come here a second time."""
        later = trainer.current_epoch - self.unfreeze_backbone_at_epoch
        if later >= 0:
            if not self.unfrozen:
                self.unfreeze(trainer, pl_module)
            self.set_rates(trainer, min(1.0, self.backbone_initial_ratio_lr * self.growth**later))
        self._rest_norms(pl_module)

    def unfreeze(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let the backbone learn, in groups of its own, as its optimizer and schedules know."""
        self.unfrozen = True
        backbone: Any = pl_module.backbone
        backbone.requires_grad_(True)
        for norm in self._norms(pl_module):
            norm.requires_grad_(self.train_bn)
        (optimizer,) = trainer.optimizers
        heads = len(optimizer.param_groups)
        parts: dict[int, list[nn.Parameter]] = {}
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parts.setdefault(follows(optimizer, parameter), []).append(parameter)
        for head, parameters in parts.items():
            settings = optimizer.param_groups[head]
            self.joined[len(optimizer.param_groups)] = head
            optimizer.add_param_group({**settings, "params": parameters})
        for config in trainer.lr_scheduler_configs:
            widen(config.scheduler, heads, [*self.joined.values()])
        if isinstance(trainer.strategy, DDPStrategy):  # it looks for what learns only once
            trainer.strategy.model = pl_module
            trainer.strategy.configure_ddp()

    def set_rates(self, trainer: L.Trainer, fraction: float) -> None:
        """Give the backbone this fraction of the head's rates, now and in what schedules plan."""
        groups = trainer.optimizers[0].param_groups
        for group, head in self.joined.items():
            for name in set(RATES) & set(groups[head]):
                groups[group][name] = groups[head][name] * fraction
            for scheduler in [
                one for c in trainer.lr_scheduler_configs for one in all_of(c.scheduler)
            ]:
                for planned in lists_of(scheduler, len(groups)):
                    if isinstance(planned[head], float):
                        planned[group] = planned[head] * fraction

    # What a checkpoint keeps.

    def state_dict(self) -> dict[str, Any]:
        return {"unfrozen": self.unfrozen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restarting = state_dict["unfrozen"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._restarting:  # the groups, whose numbers are restored after this
            self.unfreeze(trainer, pl_module)
        self._restarting = False


def follows(optimizer: Optimizer, parameter: nn.Parameter) -> int:
    """The group whose parameters are of the same kind, matrices or vectors; else the first."""
    for number, group in enumerate(optimizer.param_groups):
        if any((other.ndim >= 2) == (parameter.ndim >= 2) for other in group["params"]):
            return number
    return 0


def all_of(scheduler: Any) -> list[Any]:
    """A schedule and those that it is made of."""
    parts = getattr(scheduler, "_schedulers", [])
    return [scheduler, *(one for part in parts for one in all_of(part))]


def lists_of(scheduler: Any, groups: int) -> list[list]:
    """What a schedule keeps for each group: its peak rate, or the function that makes it."""
    kept = (vars(scheduler).get(name) for name in ("base_lrs", "max_lrs", "lr_lambdas"))
    return [values for values in kept if isinstance(values, list) and len(values) == groups]


def widen(scheduler: Any, groups: int, followed: list[int]) -> None:
    """Let a schedule know of new groups, each like one that it has."""
    for one in all_of(scheduler):
        for values in lists_of(one, groups):
            values += [values[head] for head in followed]
