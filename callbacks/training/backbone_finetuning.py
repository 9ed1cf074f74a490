"""Train the head of a pretrained network first, then the backbone at a lower learning rate."""

from typing import Any

import lightning as L
from lightning.pytorch import callbacks
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # noqa: PLC2701  # base of BatchNorm1d, 2d, 3d
from torch.optim import Optimizer

from engine.errors import UserError

RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # learning rates of a parameter group


class BackboneFinetuning(callbacks.BackboneFinetuning):
    """Lightning's BackboneFinetuning with schedules, weight decay and exact resume.

    The gradients of a randomly initialized head would destroy pretrained features. So the backbone
    is frozen for some epochs, and then trained with a fraction of the head's learning rate that
    grows until both are equal:

        lr of the backbone = min(1, ratio · growth^(epoch − unfreeze_at_epoch)) · lr of the head

    Lightning adds the backbone as one parameter group with its own learning rate. Here its matrices
    get the settings of the head's matrices, and its vectors (biases, norms) those of the head's
    vectors, including weight decay and schedule. Lightning also keeps batch norms trainable while
    the backbone is frozen, and does not restore an unfrozen backbone on resume. The task needs a
    `backbone` and one optimizer.

    Args:
        unfreeze_at_epoch: First epoch, counted from 0, in which the backbone is trained.
        ratio: Its learning rate in that epoch as a fraction of the head's, in (0, 1].
        growth: Factor of that fraction from one epoch to the next, at least 1.
        train_norms: Whether to train the backbone's batch norms with it and to update their
            statistics; means of a few small batches are often worse than the pretrained ones.

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
        if unfreeze_at_epoch < 0:
            raise ValueError(
                f"BackboneFinetuning: unfreeze_at_epoch must be at least 0, got {unfreeze_at_epoch}"
            )
        if not 0 < ratio <= 1:
            raise ValueError(f"BackboneFinetuning: ratio must be in (0, 1], got {ratio}")
        if growth < 1:
            raise ValueError(f"BackboneFinetuning: growth must be at least 1, got {growth}")
        super().__init__(
            unfreeze_backbone_at_epoch=unfreeze_at_epoch,
            backbone_initial_ratio_lr=ratio,
            train_bn=train_norms,
        )
        self.growth = growth
        self.unfrozen = False
        self.head_groups: dict[int, int] = {}  # parameter group of the backbone → of the head

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if not isinstance(getattr(pl_module, "backbone", None), nn.Module):
            net = type(getattr(pl_module, "net", pl_module)).__name__
            raise UserError(
                f"trainer.callbacks: BackboneFinetuning needs a network with a `backbone`, such as "
                f"modules.nets.TorchvisionNet; {net} has none. Remove the callback."
            )
        if getattr(pl_module, "adapter", None) is not None:
            raise UserError(
                "trainer.callbacks: BackboneFinetuning trains the weights that an adapter freezes: "
                "pass --trainer.callbacks null, or --model.adapter null."
            )
        if trainer.world_size > 1 and not isinstance(trainer.strategy, DDPStrategy):
            raise UserError(
                "trainer.callbacks: BackboneFinetuning needs one process or --trainer.strategy "
                "ddp; sharding strategies cannot unfreeze parameters later."
            )
        self.unfrozen, self.head_groups = False, {}  # of an earlier fit
        super().setup(trainer, pl_module, stage)

    def freeze_before_training(self, pl_module: L.LightningModule) -> None:
        backbone: Any = pl_module.backbone
        backbone.requires_grad_(False)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._set_norm_modes(pl_module)

    def _norms(self, pl_module: L.LightningModule) -> list[nn.Module]:
        backbone: Any = pl_module.backbone
        return [module for module in backbone.modules() if isinstance(module, _BatchNorm)]

    def _set_norm_modes(self, pl_module: L.LightningModule) -> None:
        """Put batch norms that are not trained into eval mode, to use their running statistics."""
        for norm in self._norms(pl_module):
            norm.train(self.unfrozen and self.train_bn)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set learning rates from the epoch alone, as a resumed run may call this twice."""
        epochs = trainer.current_epoch - self.unfreeze_backbone_at_epoch
        if epochs >= 0:
            if not self.unfrozen:
                self.unfreeze(trainer, pl_module)
            fraction = self.backbone_initial_ratio_lr * self.growth**epochs
            self.set_learning_rates(trainer, min(1.0, fraction))
        self._set_norm_modes(pl_module)

    def unfreeze(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the backbone to the optimizer and its schedules, in parameter groups of its own."""
        self.unfrozen = True
        backbone: Any = pl_module.backbone
        backbone.requires_grad_(True)
        for norm in self._norms(pl_module):
            norm.requires_grad_(self.train_bn)
        (optimizer,) = trainer.optimizers
        num_groups = len(optimizer.param_groups)
        parameters_by_head: dict[int, list[nn.Parameter]] = {}
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                head = similar_group(optimizer, parameter)
                parameters_by_head.setdefault(head, []).append(parameter)
        for head, parameters in parameters_by_head.items():
            settings = optimizer.param_groups[head]
            self.head_groups[len(optimizer.param_groups)] = head
            optimizer.add_param_group({**settings, "params": parameters})
        for config in trainer.lr_scheduler_configs:
            add_groups(config.scheduler, num_groups, [*self.head_groups.values()])
        if isinstance(trainer.strategy, DDPStrategy):  # it registers trainable parameters only once
            trainer.strategy.model = pl_module
            trainer.strategy.configure_ddp()

    def set_learning_rates(self, trainer: L.Trainer, fraction: float) -> None:
        """Set the backbone's current and scheduled learning rates to a fraction of the head's."""
        groups = trainer.optimizers[0].param_groups
        for group, head in self.head_groups.items():
            for name in set(RATES) & set(groups[head]):
                groups[group][name] = groups[head][name] * fraction
            for config in trainer.lr_scheduler_configs:
                for values in group_values(config.scheduler, len(groups)):
                    if isinstance(values[head], float):
                        values[group] = values[head] * fraction

    def state_dict(self) -> dict[str, Any]:
        return {"unfrozen": self.unfrozen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restarting = state_dict["unfrozen"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._restarting:  # before the states of optimizer and schedules are loaded
            self.unfreeze(trainer, pl_module)
        self._restarting = False


def similar_group(optimizer: Optimizer, parameter: nn.Parameter) -> int:
    """Return the index of the group with matrices, or with vectors, like the parameter; else 0."""
    for index, group in enumerate(optimizer.param_groups):
        if any((other.ndim >= 2) == (parameter.ndim >= 2) for other in group["params"]):
            return index
    return 0


def group_values(scheduler: Any, num_groups: int) -> list[list]:
    """Return the lists with one learning rate or function per group, also of nested schedules."""
    nested = getattr(scheduler, "_schedulers", [])  # of SequentialLR and ChainedScheduler
    lists = [vars(scheduler).get(name) for name in ("base_lrs", "max_lrs", "lr_lambdas")]
    own = [one for one in lists if isinstance(one, list) and len(one) == num_groups]
    return own + [values for one in nested for values in group_values(one, num_groups)]


def add_groups(scheduler: Any, num_groups: int, copied: list[int]) -> None:
    """Add parameter groups to a schedule, each a copy of an existing group."""
    for values in group_values(scheduler, num_groups):
        values += [values[index] for index in copied]
