"""Optimizers and learning-rate schedules, as every task uses them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from engine.lightning_internals import attached_trainer
from modules.optim.muon import Muon


class WarmupCosine(LRScheduler):
    """Linear warm-up, then half a cosine down, counted in optimizer steps.

    With peak rate `lr`, warm-up `w`, total `n` and `progress = (t - w) / (n - w)`:

        rate(t) = lr · (t + 1) / (w + 1)                              for t < w
        rate(t) = lr · (f + (1 - f) · (1 + cos(π · progress)) / 2)    for t ≥ w

    Loshchilov & Hutter, "SGDR" (2017), without restarts; the shape GPT-3 was trained with.

    Args:
        optimizer: Its rates are the peaks.
        warmup_steps: Steps `w` until the peak is reached.
        total_steps: Steps `n` until the floor is reached; by default the length of the run.
        final_fraction: Floor `f` as a fraction of the peak, in [0, 1].
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
        """The rate at a step as a fraction of the peak."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if self.total_steps is None or self.total_steps <= self.warmup_steps:
            return 1.0
        progress = min(1.0, (step - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return cosine(1.0, self.final_fraction, progress)

    def get_lr(self) -> list[float | Tensor]:
        """Called by torch after each step: one rate per parameter group."""
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]


class OneCycle(LRScheduler):
    """Up to the peak, then down to almost nothing; the momentum moves the other way.

    With peak rate `lr`, total `n`, a peak at `p = w · n - 1` and the half cosine

        cosine(a, b, x) = b + (a - b) · (1 + cos(π x)) / 2    from a at x = 0 to b at x = 1

        rate(t) = cosine(lr / 25, lr, t / p)                              for t ≤ p
        rate(t) = cosine(lr, lr / 250,000, (t - p) / (n - 1 - p))         for t > p

    and the momentum goes from 0.95 to 0.85 and back. Smith & Topin, "Super-convergence" (2018): the
    high rate in the middle regularises, so other regularisation may be weaker. The numbers are
    those of torch's OneCycleLR, which has to be told `max_lr` and `total_steps`.

    Args:
        optimizer: Its rates are the peaks.
        total_steps: Steps `n`; by default the length of the run.
        warmup_fraction: Share `w` of the steps until the peak, in (0, 1).
        cycle_momentum: Move the momentum, or Adam's first beta, too. An optimizer without momentum
            stays without.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        warmup_fraction: float = 0.3,
        cycle_momentum: bool = True,
    ) -> None:
        if not 0 < warmup_fraction < 1:
            raise ValueError(
                f"OneCycle: warmup_fraction must be above 0 and below 1, not {warmup_fraction}."
            )
        self.total_steps = total_steps
        self.warmup_fraction = warmup_fraction
        self.cycle_momentum = cycle_momentum
        super().__init__(optimizer)

    def between(self, step: int, start: float, peak: float, end: float) -> float:
        """The value at a step of what goes from start to peak and on to the end."""
        if self.total_steps is None:
            return start
        top = max(0.0, self.warmup_fraction * self.total_steps - 1)  # a short run begins there
        if top and step <= top:
            return cosine(start, peak, step / top)
        down = max(self.total_steps - 1 - top, 1e-9)  # 0 in a run of one step
        return cosine(peak, end, min(1.0, (step - top) / down))

    def get_lr(self) -> list[float | Tensor]:
        """Called by torch after each step: one rate per parameter group."""
        if self.cycle_momentum:
            momentum = self.between(self.last_epoch, 0.95, 0.85, 0.95)
            for group in self.optimizer.param_groups:
                if group.get("momentum"):
                    group["momentum"] = momentum
                elif "betas" in group:
                    group["betas"] = (momentum, *group["betas"][1:])
        factor = self.between(self.last_epoch, 1 / 25, 1.0, 1 / 250_000)
        return [base * factor for base in self.base_lrs]


class Noam(LRScheduler):
    """Linear warm-up, then down with the square root of the steps.

    With the optimizer's `lr` as a factor, the width `D` of the net and the warm-up `w`:

        rate(t) = lr · D^(-1/2) · min((t + 1)^(-1/2), (t + 1) · w^(-3/2))

    Vaswani et al. 2017, "Attention is all you need", equation 3, where `lr` is 1; so named after
    Noam Shazeer. The rate does not know when the run ends, and never comes to nothing: averaged
    weights (configs/trainer/ema.yaml) go well with it.

    Args:
        optimizer: Its rates are the factors.
        dim: Width `D` of the net.
        warmup_steps: Steps `w` until the rate is highest, `lr / sqrt(D w)`; at least 1.
    """

    total_steps = None  # it counts steps, and to no end

    def __init__(self, optimizer: Optimizer, dim: int, warmup_steps: int = 4000) -> None:
        if dim < 1 or warmup_steps < 1:
            raise ValueError(
                f"Noam: dim and warmup_steps must be 1 or more, not {dim} and {warmup_steps}."
            )
        self.dim = dim
        self.warmup_steps = warmup_steps
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """What the optimizer's rate is multiplied by at a step."""
        t = step + 1
        return self.dim**-0.5 * min(t**-0.5, t * self.warmup_steps**-1.5)

    def get_lr(self) -> list[float | Tensor]:
        """Called by torch after each step: one rate per parameter group."""
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from start, at progress 0, to end, at progress 1."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def configure(
    task: L.LightningModule,
    optimizer: OptimizerCallable | None,
    lr_scheduler: LRSchedulerCallable | None,
) -> dict[str, Any]:
    """What a task returns from `configure_optimizers`.

    Weight decay, where the optimizer has any, acts on matrices only: decaying biases and
    normalisation gains pulls them to where nothing is learned. Schedules that have
    `total_steps` (WarmupCosine, OneCycle, OneCycleLR; None for Noam) advance by optimizer steps, a
    ReduceLROnPlateau by validations, all others by epochs.

    Args:
        task: The task to optimize; only its parameters with `requires_grad` are given away.
        optimizer: Makes an optimizer of parameters; AdamW with lr 0.001 where there is none.
        lr_scheduler: Makes a schedule of an optimizer; a constant rate where there is none.

    Raises:
        MisconfigurationException: If the optimizer or the schedule refuses its arguments, or the
            length of the run.
    """
    parameters = [parameter for parameter in task.parameters() if parameter.requires_grad]
    with _refusals("optimizer"):
        made = (optimizer or partial(AdamW, lr=1e-3, fused=True))(parameters)
    if attached_trainer(task) is not None and task.trainer.precision == "bf16-mixed":
        # Lightning refuses to clip for a fused optimizer, which would unscale its gradients by
        # itself. Only float16 scales them at all.
        made._step_supports_amp_scaling = False  # type: ignore[attr-defined]  # noqa: SLF001  # see above
    if isinstance(made, Muon):
        made.leave_to_adamw(_ends_of(task))
    if made.defaults.get("weight_decay"):
        _exempt_vectors(made)
    if lr_scheduler is None:
        return {"optimizer": made}
    with _refusals("lr_scheduler"):
        scheduler = lr_scheduler(made)
    if isinstance(scheduler, ReduceLROnPlateau):
        config: dict[str, Any] = {"scheduler": scheduler, "monitor": scheduler.monitor}
        if attached_trainer(task) is not None and task.trainer.check_val_every_n_epoch is None:
            # Validation counts batches: an epoch may be far away, or never end.
            config |= {"interval": "step", "frequency": task.trainer.val_check_interval}
        return {"optimizer": made, "lr_scheduler": config}
    if isinstance(scheduler, WarmupCosine | OneCycle) and scheduler.total_steps is None:
        scheduler.total_steps = steps_of_run(task.trainer)
    if isinstance(scheduler, OneCycleLR):
        total, steps = scheduler.total_steps, steps_of_run(task.trainer)
        if steps > total:
            raise MisconfigurationException(
                f"model.lr_scheduler: OneCycleLR refuses more than its total_steps {total}, and "
                f"the run takes {steps}; modules.optim.OneCycle counts to the end of the run."
            )
    interval = "step" if hasattr(scheduler, "total_steps") else "epoch"
    return {"optimizer": made, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}


def _ends_of(task: L.LightningModule) -> Iterator[Tensor]:
    """Matrices that are no hidden layer's: tables of vectors, and what makes the logits."""
    for module in task.modules():
        if isinstance(module, nn.Embedding):
            yield module.weight
    head = getattr(getattr(task, "net", None), "head", None) or nn.Identity()  # else a table's
    layers = [module for module in head.modules() if isinstance(module, nn.Linear)]
    for layer in layers:
        if layer.out_features == layers[-1].out_features:
            yield layer.weight


@contextmanager
def _refusals(argument: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise MisconfigurationException(f"model.{argument}: {error}") from error


def steps_of_run(trainer: L.Trainer) -> int:
    """Optimizer steps that the run will take.

    Raises:
        MisconfigurationException: If the run has no end.
    """
    steps = trainer.estimated_stepping_batches
    if steps == math.inf:
        raise MisconfigurationException(
            "the schedule counts to the end of the run, and this run has none: set "
            "trainer.max_epochs or trainer.max_steps, or the schedule's total_steps."
        )
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, GradientAccumulationScheduler) and trainer.max_epochs != -1:
            # Lightning counts all epochs by the first one's number of accumulated batches.
            batches, epochs = trainer.num_training_batches, range(trainer.max_epochs or 1)
            numbers = map(callback.get_accumulate_grad_batches, epochs)
            steps = sum(math.ceil(batches / number) for number in numbers)
            steps = steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)
    return int(steps)


def _exempt_vectors(optimizer: Optimizer) -> None:
    for group in list(optimizer.param_groups):
        matrices: list[nn.Parameter] = [p for p in group["params"] if p.ndim >= 2]
        vectors: list[nn.Parameter] = [p for p in group["params"] if p.ndim < 2]
        if not matrices:
            group["weight_decay"] = 0.0
        elif vectors:
            group["params"] = matrices
            optimizer.add_param_group({**group, "params": vectors, "weight_decay": 0.0})
