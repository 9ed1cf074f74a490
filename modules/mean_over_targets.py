"""The gradient of a step as the mean over all its targets, wherever they are."""

import lightning as L
import torch
from torch import Tensor


class MeanOverTargets(L.LightningModule):
    """What tasks share whose batches have different numbers of targets: padding, hidden words.

    Lightning and DDP form means over accumulated batches and processes, in which a target of a
    batch with few of them would weigh more than others.
    """

    _counted: Tensor | None = None  # targets of the step under way
    _nominal = 0  # targets of the run's first batch

    def share_of_step(self, nats: Tensor, count: Tensor, places: int) -> Tensor:
        """What `training_step` returns.

        Args:
            nats: Sum of the losses of the batch's targets.
            count: How many targets these are.
            places: How many targets a batch of this shape could have.
        """
        self._counted = count if self._counted is None else self._counted + count
        if not self._nominal:  # any number would do: the same for all batches and processes
            self._nominal = self.trainer.strategy.broadcast(places)
        return nats / self._nominal

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Turn the mean over batches, which Lightning and DDP formed, into that over targets."""
        counted, self._counted = self._counted, None
        if counted is None:
            return
        total = self.trainer.strategy.reduce(counted, reduce_op="sum")
        batches = self.trainer.accumulate_grad_batches * self.trainer.world_size
        factor = batches * self._nominal / total.clamp(min=1)
        if counted.device.type == "cpu" and float(factor) == 1.0:  # no padding: the usual case
            return
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        torch._foreach_mul_(gradients, factor)
