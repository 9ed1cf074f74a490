"""Gradients and training metrics over accumulated batches and processes."""

import math

import lightning as L
import torch
from torch import Tensor


def should_log(task: L.LightningModule) -> bool:
    """Return whether the current training step is one of every `trainer.log_every_n_steps`."""
    interval: int = task.trainer.log_every_n_steps  # type: ignore[attr-defined]
    return (task.global_step + 1) % interval == 0


def mean_over_processes(trainer: L.Trainer, count: Tensor, *sums: Tensor) -> tuple[Tensor, ...]:
    """Divide sums over the tokens of all processes by the number of those tokens.

    Log the results without `sync_dist`, which would weight processes equally instead of tokens.
    """
    local = torch.stack([count.float(), *(one.detach().float() for one in sums)])
    total, *rest = trainer.strategy.reduce(local, reduce_op="sum")
    return tuple(one / total.clamp(min=1) for one in rest)


def rescale_short_accumulation(task: L.LightningModule) -> None:
    """Divide the gradient by the number of batches that were accumulated; for
    on_before_optimizer_step.

    Lightning divides the loss of each batch by `accumulate_grad_batches`, although the last step of
    an epoch may have accumulated fewer batches.
    """
    trainer = task.trainer
    accumulate = trainer.accumulate_grad_batches
    accumulated = trainer.fit_loop.batch_idx % accumulate + 1
    if accumulated < accumulate and not trainer.strategy.handles_gradient_accumulation:
        _scale_gradients(task, accumulate / accumulated)


def _scale_gradients(task: L.LightningModule, factor: float | Tensor) -> None:
    gradients = [p.grad for p in task.parameters() if p.grad is not None]
    if gradients:  # the epoch in which weight averaging updates batch norm has none
        torch._foreach_mul_(gradients, factor)  # no public function scales many tensors


class TokenMeanGradient:
    """Make the gradient of an optimizer step that of the mean loss over all its tokens.

    Lightning averages over accumulated batches and DDP over processes, each of which may hold a
    different number of tokens. So each batch's summed loss is divided by the same nominal number of
    tokens, and the gradient is rescaled once the tokens of the step are counted. The nominal number
    is a power of two, so that the division is exact and a resumed run equals an uninterrupted one.
    """

    def __init__(self) -> None:
        self.count: Tensor | None = None  # tokens of the current step
        self.nominal_count = 0

    def loss(self, task: L.LightningModule, nats: Tensor, count: Tensor, positions: int) -> Tensor:
        """Return the loss for `training_step`.

        Args:
            task: The task.
            nats: Summed loss of the batch.
            count: Number of tokens that it is summed over.
            positions: Number of positions of the batch, including padding.
        """
        trainer = task.trainer
        if trainer.world_size == 1 and trainer.accumulate_grad_batches == 1:
            return nats / count.clamp(min=1)
        if trainer.strategy.handles_gradient_accumulation:
            # DeepSpeed owns the gradients, so accumulated batches are weighted equally.
            total = trainer.strategy.reduce(count.clone(), reduce_op="sum")
            return nats * trainer.world_size / total.clamp(min=1)
        self.count = count if self.count is None else self.count + count
        if not self.nominal_count:
            power = 2 ** round(math.log2(max(positions, 1)))
            self.nominal_count = trainer.strategy.broadcast(power)
        return nats / self.nominal_count

    def rescale(self, task: L.LightningModule) -> None:
        """Rescale the gradients; call it in `on_before_optimizer_step`."""
        count, self.count = self.count, None
        if count is None:
            return
        trainer = task.trainer
        total = trainer.strategy.reduce(count, reduce_op="sum")
        batches = trainer.accumulate_grad_batches * trainer.world_size
        factor = batches * self.nominal_count / total.clamp(min=1)
        # A Python float works with plain, sharded and offloaded gradients.
        if next(task.parameters()).device.type == "cpu":
            factor = float(factor)
            if factor == 1.0:
                return
        _scale_gradients(task, factor)
