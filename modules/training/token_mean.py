"""Every token of an optimizer step counts the same, however they are spread over batches."""

import math

import lightning as L
import torch
from torch import Tensor


def means_over_processes(trainer: L.Trainer, count: Tensor, *sums: Tensor) -> tuple[Tensor, ...]:
    """Sums over the tokens of this process, divided by their number: the means over all processes.

    To be logged as they are (`sync_dist` would give processes the same say, and not tokens).
    """
    told = torch.stack([count.float(), *(one.detach().float() for one in sums)])
    total, *rest = trainer.strategy.reduce(told, reduce_op="sum")
    return tuple(one / total.clamp(min=1) for one in rest)


class TokenMean:
    """Makes the gradient of a step that of the mean over all its tokens.

    Lightning and DDP form the mean over accumulated batches and over processes, each of which may
    hold another number of tokens that count. So the batches' sums are divided by one number that is
    the same for all, and the gradients made right once the step's tokens are counted. The number is
    a power of two: it leaves every bit as it is, whichever batch a run begins or goes on with.
    """

    def __init__(self) -> None:
        self.counted: Tensor | None = None  # tokens of the step under way
        self.nominal = 0

    def loss(self, task: L.LightningModule, nats: Tensor, count: Tensor, size: int) -> Tensor:
        """What `training_step` returns.

        Args:
            task: Whose step it is.
            nats: Sum over the batch's tokens.
            count: How many tokens that are.
            size: Places of the batch, those that do not count among them.
        """
        trainer = task.trainer
        if trainer.world_size == 1 and trainer.accumulate_grad_batches == 1:
            return nats / count.clamp(min=1)
        if trainer.strategy.handles_gradient_accumulation:
            # DeepSpeed keeps the gradients to itself: the batches of a step count the same each.
            total = trainer.strategy.reduce(count.clone(), reduce_op="sum")
            return nats * trainer.world_size / total.clamp(min=1)
        self.counted = count if self.counted is None else self.counted + count
        if not self.nominal:
            power = 2 ** round(math.log2(max(size, 1)))
            self.nominal = trainer.strategy.broadcast(power)
        return nats / self.nominal

    def rescale(self, task: L.LightningModule) -> None:
        """What `on_before_optimizer_step` calls."""
        counted, self.counted = self.counted, None
        if counted is None:
            return
        trainer = task.trainer
        total = trainer.strategy.reduce(counted, reduce_op="sum")
        batches = trainer.accumulate_grad_batches * trainer.world_size
        factor = batches * self.nominal / total.clamp(min=1)
        if counted.device.type == "cpu":  # a number is no tensor that a sharded gradient minds
            factor = float(factor)
            if factor == 1.0:
                return
        gradients = [p.grad for p in task.parameters() if p.grad is not None]
        torch._foreach_mul_(gradients, factor)
