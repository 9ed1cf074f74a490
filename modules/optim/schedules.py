"""Learning-rate schedules, and the optimizer configuration of every task."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from engine.errors import UserError
from engine.lightning_internals import attached_trainer
from modules.optim.layer_decay import LayerDecayAdamW
from modules.optim.muon import Muon


class WarmupCosine(LRScheduler):
    """Linear warmup, then cosine decay, stepped once per optimizer step.

    With peak `lr`, warmup `w`, total `n` and `progress = (t - w) / (n - w)`:

        lr(t) = lr · (t + 1) / (w + 1)                              for t < w
        lr(t) = lr · (f + (1 - f) · (1 + cos(π · progress)) / 2)    for t ≥ w

    Loshchilov & Hutter, "SGDR" (2017), without restarts; as in GPT-3.

    Args:
        optimizer: Its learning rates are the peaks.
        warmup_steps: Steps `w` until the peak.
        total_steps: Steps `n` until the minimum; the number of steps of the run by default.
        final_fraction: Minimum `f` as a fraction of the peak, in [0, 1].
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int = 0,
        total_steps: int | None = None,
        final_fraction: float = 0.0,
    ) -> None:
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        self.final_fraction = final_fraction
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """Return the learning rate at a step as a fraction of the peak."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if self.total_steps is None or self.total_steps <= self.warmup_steps:
            return 1.0
        progress = min(1.0, (step - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return (
            self.final_fraction
            + (1.0 - self.final_fraction) * (1 + math.cos(math.pi * progress)) / 2
        )

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each parameter group."""
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]


class WarmupLinear(LRScheduler):
    """Linear warmup, then linear decay to zero, stepped once per optimizer step.

    With peak `lr`, total `n` and warmup `w = warmup_fraction · n`:

        lr(t) = lr · (t + 1) / (w + 1)        for t < w
        lr(t) = lr · (n - t) / (n - w)        for t ≥ w

    Devlin et al. 2019, appendix A.3; the usual schedule for fine-tuning.

    Args:
        optimizer: Its learning rates are the peaks.
        warmup_fraction: Fraction of the steps until the peak, in [0, 1).
        total_steps: Steps `n` until zero; the number of steps of the run by default.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_fraction: float = 0.1,
        total_steps: int | None = None,
    ) -> None:
        if not 0 <= warmup_fraction < 1:
            raise ValueError(
                f"WarmupLinear: warmup_fraction must be in [0, 1), got {warmup_fraction}."
            )
        self.warmup_fraction = warmup_fraction
        self.begin(optimizer, total_steps)

    def begin(self, optimizer: Optimizer, total_steps: int | None) -> None:
        """Start a schedule of `total_steps` steps."""
        self.total_steps = total_steps
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """Return the learning rate at a step as a fraction of the peak."""
        if self.total_steps is None:
            return 1.0
        warmup = self.warmup_fraction * self.total_steps
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return max(0.0, (self.total_steps - step) / (self.total_steps - warmup))

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each parameter group."""
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]


class OneCycle(OneCycleLR):
    """torch's OneCycleLR whose peaks are the optimizer's learning rates.

    Smith & Topin, "Super-convergence" (2018): the learning rate rises from lr / 25 to lr and falls
    to lr / 250,000, while the momentum (or Adam's first beta) falls from 0.95 to 0.85 and rises
    again.

    Args:
        optimizer: Its learning rates are the peaks.
        total_steps: Number of steps; that of the run by default.
        warmup_fraction: Fraction of the steps until the peak, in (0, 1).
        cycle_momentum: Also cycle the momentum, unless the optimizer has none.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        warmup_fraction: float = 0.3,
        cycle_momentum: bool = True,
    ) -> None:
        if not 0 < warmup_fraction < 1:
            raise ValueError(f"OneCycle: warmup_fraction must be in (0, 1), got {warmup_fraction}.")
        self.optimizer = optimizer
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.warmup_fraction = warmup_fraction
        has_momentum = "betas" in optimizer.defaults or optimizer.defaults.get("momentum", 0) > 0
        self.cycles_momentum = cycle_momentum and has_momentum
        self.follows_run = total_steps is None
        self.begin(total_steps or 1)

    def begin(self, total_steps: int) -> None:
        """Start a cycle of `total_steps` steps."""
        super().__init__(
            self.optimizer,
            max_lr=self.peaks,
            total_steps=total_steps,
            pct_start=self.warmup_fraction,
            cycle_momentum=self.cycles_momentum,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the position in the cycle, also from the state of earlier versions of this class."""
        position = ("last_epoch", "_step_count", "_last_lr")
        super().load_state_dict({key: state_dict[key] for key in position})
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group |= {"initial_lr": peak / 25, "max_lr": peak, "min_lr": peak / 25 / 1e4}
            if self.cycles_momentum:
                group |= {"max_momentum": 0.95, "base_momentum": 0.85}


class Noam(LRScheduler):
    """Linear warmup, then decay with the inverse square root of the step.

    With the optimizer's `lr` as a factor, model width `D` and warmup `w`:

        lr(t) = lr · D^(-1/2) · min((t + 1)^(-1/2), (t + 1) · w^(-3/2))

    Vaswani et al. 2017, "Attention is all you need", equation 3, where `lr` is 1; named after Noam
    Shazeer. The schedule does not depend on the length of the run and never reaches zero, so it
    combines well with averaged weights (configs/trainer/ema.yaml).

    Args:
        optimizer: Its learning rates are the factors.
        dim: Model width `D`.
        warmup_steps: Steps `w` until the maximum `lr / sqrt(D w)`, at least 1.
    """

    total_steps = None  # stepped once per optimizer step, like the schedules with a total

    def __init__(self, optimizer: Optimizer, dim: int, warmup_steps: int = 4000) -> None:
        if dim < 1 or warmup_steps < 1:
            raise ValueError(
                f"Noam: dim and warmup_steps must be at least 1, got {dim} and {warmup_steps}."
            )
        self.dim = dim
        self.warmup_steps = warmup_steps
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """Return the factor of the optimizer's learning rate at a step."""
        t = step + 1
        return self.dim**-0.5 * min(t**-0.5, t * self.warmup_steps**-1.5)

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each parameter group."""
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]


def configure(
    task: L.LightningModule,
    optimizer: OptimizerCallable | None,
    lr_scheduler: LRSchedulerCallable | None,
) -> dict[str, Any]:
    """Return the optimizer and schedule of a task for `configure_optimizers`.

    Weight decay applies to matrices only, not to biases and normalization gains. Schedules with
    `total_steps` (WarmupCosine, WarmupLinear, OneCycle, OneCycleLR, Noam) are stepped after each
    optimizer step, a ReduceLROnPlateau after each validation, all others after each epoch.

    Args:
        task: The task; its parameters with `requires_grad` are optimized.
        optimizer: Creates an optimizer for parameters; AdamW with lr 0.001 by default.
        lr_scheduler: Creates a schedule for an optimizer; a constant learning rate by default.

    Raises:
        UserError: If the arguments of the optimizer or schedule are invalid, or do not fit the run.
    """
    trainer = attached_trainer(task)
    parameters = [parameter for parameter in task.parameters() if parameter.requires_grad]
    with _invalid_arguments("optimizer"):
        created = (optimizer or partial(AdamW, lr=1e-3, fused=True))(parameters)
    if trainer is not None and trainer.precision == "bf16-mixed":
        # Lightning refuses gradient clipping for fused optimizers, since those unscale gradients
        # themselves; only float16 scales gradients.
        created._step_supports_amp_scaling = False  # type: ignore[attr-defined]  # noqa: SLF001  # see above
    if isinstance(created, Muon):
        created.exclude_from_muon(_embeddings_and_output_layer(task))
    if isinstance(created, LayerDecayAdamW):
        with _invalid_arguments("optimizer"):
            created.set_layers(task.named_parameters())
    if created.defaults.get("weight_decay"):
        _exempt_vectors_from_decay(created)
    if lr_scheduler is None:
        return {"optimizer": created}
    with _invalid_arguments("lr_scheduler"):
        scheduler = lr_scheduler(created)
    if isinstance(scheduler, ReduceLROnPlateau):
        config: dict[str, Any] = {"scheduler": scheduler, "monitor": scheduler.monitor}
        if trainer is not None and trainer.check_val_every_n_epoch is None:
            # Validation is counted in batches, and an epoch may never end.
            config |= {"interval": "step", "frequency": trainer.val_check_interval}
        return {"optimizer": created, "lr_scheduler": config}
    if isinstance(scheduler, WarmupCosine) and scheduler.total_steps is None:
        scheduler.total_steps = steps_of_run(task.trainer)
    elif isinstance(scheduler, WarmupLinear) and scheduler.total_steps is None:
        scheduler.begin(created, steps_of_run(task.trainer))
    elif isinstance(scheduler, OneCycle) and scheduler.follows_run:
        scheduler.begin(steps_of_run(task.trainer))
    elif isinstance(scheduler, OneCycleLR) and steps_of_run(task.trainer) > scheduler.total_steps:
        raise UserError(
            f"model.lr_scheduler: OneCycleLR has total_steps {scheduler.total_steps}, but the run "
            f"takes {steps_of_run(task.trainer)} steps; use modules.optim.OneCycle, which spans "
            "the run."
        )
    if isinstance(scheduler, WarmupCosine | Noam) and trainer is not None:
        steps = trainer.estimated_stepping_batches
        if scheduler.warmup_steps >= steps:
            rank_zero_warn(
                f"model.lr_scheduler.warmup_steps is {scheduler.warmup_steps}, but the run has "
                f"only {steps} step{'s' * (steps != 1)}: the learning rate never reaches its peak."
            )
    interval = "step" if hasattr(scheduler, "total_steps") else "epoch"
    return {"optimizer": created, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}


def _embeddings_and_output_layer(task: L.LightningModule) -> Iterator[Tensor]:
    """Yield the weights of embedding tables and of the layers that compute the logits."""
    for module in task.modules():
        if isinstance(module, nn.Embedding):
            yield module.weight
    # Without a head the logits come from an embedding table.
    head = getattr(getattr(task, "net", None), "head", None) or nn.Identity()
    layers = [module for module in head.modules() if isinstance(module, nn.Linear)]
    for layer in layers:
        if layer.out_features == layers[-1].out_features:
            yield layer.weight


@contextmanager
def _invalid_arguments(argument: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UserError(f"model.{argument}: {error}") from error


def steps_of_run(trainer: L.Trainer) -> int:
    """Return the number of optimizer steps of a run.

    Raises:
        UserError: If the run is unlimited.
    """
    steps = trainer.estimated_stepping_batches
    if steps == math.inf:
        raise UserError(
            "model.lr_scheduler: the schedule depends on the length of the run, which is "
            "unlimited; set trainer.max_epochs, trainer.max_steps or the schedule's total_steps."
        )
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, GradientAccumulationScheduler) and trainer.max_epochs != -1:
            # Lightning uses the first epoch's number of accumulated batches for all epochs.
            batches, epochs = trainer.num_training_batches, range(trainer.max_epochs or 1)
            numbers = map(callback.get_accumulate_grad_batches, epochs)
            steps = sum(math.ceil(batches / number) for number in numbers)
            steps = steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)
    return int(steps)


def _exempt_vectors_from_decay(optimizer: Optimizer) -> None:
    for group in list(optimizer.param_groups):
        matrices: list[nn.Parameter] = [p for p in group["params"] if p.ndim >= 2]
        vectors: list[nn.Parameter] = [p for p in group["params"] if p.ndim < 2]
        if not matrices:
            group["weight_decay"] = 0.0
        elif vectors:
            group["params"] = matrices
            optimizer.add_param_group({**group, "params": vectors, "weight_decay": 0.0})
