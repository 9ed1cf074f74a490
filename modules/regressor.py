"""LightningModule for regression of one number per image or text."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, MetricCollection, R2Score

from engine.distributed.sharding import shard
from engine.errors import UserError
from engine.eval_mode import eval_mode
from modules.adapters.methods import Adapter
from modules.adapters.task import AdapterTask
from modules.inference.raw_inputs import RawSample, raw_to_inputs
from modules.optim.schedules import configure
from modules.training.compiling import eager_mode
from modules.training.gradients import rescale_short_accumulation, should_log
from modules.training.hyperparameters import save_arguments
from modules.training.metrics import MeanLoss

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "mae": F.l1_loss,
    "huber": F.huber_loss,
}


class Regressor(AdapterTask):
    """Train a network whose `forward(inputs)` returns one number per sample, (B, 1) or (B,).

    Targets are floats (B,). Logs `<stage>/loss` for train, val and test; val and test add the mean
    absolute error `mae`, the root mean squared error `rmse` and the coefficient of determination
    `r2` (1 for a perfect prediction, 0 for a constant one), all in the units of the targets.

    Args:
        net: The network; use `num_classes: 1` for a classification network.
        loss: Training loss: mean squared error, mean absolute error, or Huber loss (quadratic up
            to an error of 1, linear beyond).
        target_mean: Mean of the training targets. The network predicts standardized targets.
        target_std: Standard deviation of the training targets.
        optimizer: Optimizer class and arguments; AdamW with lr 0.001 by default.
        lr_scheduler: Schedule class and arguments; a constant learning rate by default.
        metrics: Further torchmetrics for val and test, by the name under which they are logged.
        preprocessing: How raw images become inputs. Linked from the data.
        tokenizer: How raw texts become inputs: a tokenizer as JSON, with truncation and padding.
            Linked from the data.
        adapter: What to train while the other weights of the network are frozen, such as
            modules.adapters.LoRA; all weights are trained by default.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Literal["mse", "mae", "huber"] = "mse",
        target_mean: float = 0.0,
        target_std: float = 1.0,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        metrics: dict[str, Metric] | None = None,
        preprocessing: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        super().__init__()
        if not target_std > 0:
            raise UserError(f"model.target_std must be above 0, got {target_std}.")
        save_arguments(self)
        self.set_net(net.to(memory_format=torch.channels_last), adapter)
        self.loss_function = LOSSES[loss]
        self.target_mean = target_mean
        self.target_std = target_std
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.preprocessing = preprocessing
        self.tokenizer = None if tokenizer is None else Tokenizer.from_str(tokenizer)
        evaluated: dict[str, Any] = {
            "loss": MeanLoss(),
            "mae": MeanAbsoluteError(),
            "rmse": MeanSquaredError(squared=False),
            "r2": R2Score(),
        }
        val_metrics = MetricCollection(evaluated | (metrics or {}), prefix="val/")
        self.metrics = nn.ModuleDict({"val": val_metrics, "test": val_metrics.clone("test/")})

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        """Return the predictions (B,) in the units of the targets."""
        with eager_mode(self.net):
            return self._predict(inputs)

    def _predict(self, inputs: Any) -> Tensor:
        if isinstance(inputs, Tensor) and inputs.is_floating_point():
            inputs = inputs.to(self.dtype)
        outputs = self.net(inputs).float()  # (B, 1) or (B,)
        if outputs.ndim == 2 and outputs.shape[1] != 1:
            raise UserError(
                f"Regressor: the network returns {outputs.shape[1]} values per sample instead of "
                "one; set --model.net.num_classes 1."
            )
        return outputs.flatten() * self.target_std + self.target_mean  # (B,)

    def _step(self, batch: tuple[Any, Tensor], stage: str) -> Tensor:
        inputs, targets = batch
        predictions = self._predict(inputs)  # (B,)
        # In units of standard deviations, so that learning rates are independent of the unit.
        loss = self.loss_function(predictions / self.target_std, targets.float() / self.target_std)
        count = len(targets)
        if stage != "train" and count:  # with more processes than samples, some have none
            self.metrics[stage].update(  # type: ignore[operator]
                preds=predictions, target=targets.float(), loss=loss * count, count=count
            )
        return loss

    def training_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> Tensor:
        loss = self._step(batch, "train")
        if should_log(self):
            self.log("train/loss", loss.detach(), prog_bar=True, sync_dist=True)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        rescale_short_accumulation(self)

    def validation_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> None:
        self._step(batch, "test")

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def _log_metrics(self, stage: str) -> None:
        metrics: MetricCollection = self.metrics[stage]  # type: ignore[assignment]
        self.log_dict(metrics.compute(), prog_bar=stage == "val")
        metrics.reset()

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the predictions (B,)."""
        predictions: Tensor = self(batch[0] if isinstance(batch, list | tuple) else batch)
        return predictions

    @torch.inference_mode()
    def predict(self, samples: RawSample | Sequence[RawSample] | Tensor) -> list[float]:
        """Predict a number for each raw image or text.

        Args:
            samples: As for `Classifier.classify`.
        """
        inputs = raw_to_inputs(samples, self.preprocessing, self.tokenizer, self.device)
        with eval_mode(self.net):
            values: list[float] = self(inputs).tolist()
        return values

    def configure_model(self) -> None:
        shard(self)

    def configure_optimizers(self) -> Any:
        return configure(self, self.optimizer, self.lr_scheduler)
