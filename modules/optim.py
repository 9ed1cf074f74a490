"""Optimizers and learning-rate schedules, as every task uses them."""

import math
from functools import partial
from typing import Any

import lightning as L
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler


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
        cosine = (1 + math.cos(math.pi * progress)) / 2
        return self.final_fraction + (1 - self.final_fraction) * cosine

    def get_lr(self) -> list[float | Tensor]:
        """Called by torch after each step: one rate per parameter group."""
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]


def configure(
    task: L.LightningModule,
    optimizer: OptimizerCallable | None,
    lr_scheduler: LRSchedulerCallable | None,
) -> dict[str, Any]:
    """What a task returns from `configure_optimizers`.

    Weight decay, where the optimizer has any, acts on matrices only: decaying biases and
    normalisation gains pulls them to where nothing is learned. Schedules that count to
    `total_steps` (WarmupCosine, OneCycleLR) advance by optimizer steps, all others by epochs.

    Args:
        task: The task to optimize; only its parameters with `requires_grad` are given away.
        optimizer: Makes an optimizer of parameters; AdamW with lr 0.001 where there is none.
        lr_scheduler: Makes a schedule of an optimizer; a constant rate where there is none.
    """
    parameters = [parameter for parameter in task.parameters() if parameter.requires_grad]
    made = (optimizer or partial(AdamW, lr=1e-3, fused=True))(parameters)
    if task._trainer is not None and task.trainer.precision == "bf16-mixed":
        # Lightning refuses to clip for a fused optimizer, which would unscale its gradients by
        # itself. Only float16 scales them at all.
        made._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    if made.defaults.get("weight_decay"):
        _exempt_vectors(made)
    if lr_scheduler is None:
        return {"optimizer": made}
    scheduler = lr_scheduler(made)
    if isinstance(scheduler, ReduceLROnPlateau):
        return {
            "optimizer": made,
            "lr_scheduler": {"scheduler": scheduler, "monitor": scheduler.monitor},
        }
    if isinstance(scheduler, WarmupCosine) and scheduler.total_steps is None:
        scheduler.total_steps = int(task.trainer.estimated_stepping_batches)
    interval = "step" if hasattr(scheduler, "total_steps") else "epoch"
    return {"optimizer": made, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}


def _exempt_vectors(optimizer: Optimizer) -> None:
    (group,) = optimizer.param_groups
    matrices: list[nn.Parameter] = [p for p in group["params"] if p.ndim >= 2]
    vectors: list[nn.Parameter] = [p for p in group["params"] if p.ndim < 2]
    if matrices and vectors:
        group["params"] = matrices
        optimizer.add_param_group({"params": vectors, "weight_decay": 0.0})
