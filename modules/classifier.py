"""The task of naming what a picture or a text shows: cross-entropy over classes."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import ClasswiseWrapper, Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from engine.distributed.sharding import shard
from modules.optim.schedules import configure
from modules.training.compiling import as_written, compile_net
from modules.training.hyperparameters import save_arguments
from modules.training.sum_metric import Float32Sum
from preprocessing.images import images_to_inputs
from preprocessing.texts import texts_to_inputs


class Classifier(L.LightningModule):
    """Train any net whose `forward(inputs)` returns logits (B, num_classes).

    Logs `<stage>/loss` (nats) and `<stage>/accuracy` for train, val and test; val and test add
    macro-averaged `f1`, `precision`, `recall`, `auroc` and the expected calibration error `ece`
    (Guo et al. 2017, 15 bins). Training figures are those of single batches, taken every
    `trainer.log_every_n_steps`, so that the steps between cost nothing.

    Training targets are class numbers (B,) or, for mixed pictures, probabilities (B, num_classes);
    then the loss is the cross-entropy with those, and the accuracy that of the likeliest class.

    Args:
        net: The architecture; its sizes come from the data.
        num_classes: Number of classes; train.py links it from the data.
        optimizer: Optimizer class and arguments; AdamW with lr 0.001 by default.
        lr_scheduler: Schedule class and arguments; a constant rate by default.
        label_smoothing: Probability in [0, 1) spread over all classes in the training loss; val and
            test losses are always the plain cross-entropy.
        compile: Compile the net for training (`net.compile()`): a slow first step, then faster;
            worth it for long runs on pictures, whose batches have one shape. What is evaluated is
            the net as it is written. For a CPU that takes a C++ compiler; without one the net stays
            as it is, and says so.
        per_class: Also log precision, recall and F1 of each class, as `test/f1/<class>`.
        class_names: Names of the classes; their numbers by default. Linked from the data.
        preprocessing: How a raw picture becomes an input. Linked from the data.
        tokenizer: How a raw text becomes an input: a tokenizer with its cutting and padding, as
            JSON. Linked from the data.
    """

    targets_are_classes = True  # batches are (inputs, targets); forward returns logits

    def __init__(
        self,
        net: nn.Module,
        num_classes: int = 10,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        label_smoothing: float = 0.0,
        compile: bool = False,
        per_class: bool = False,
        class_names: list[str] | None = None,
        preprocessing: dict[str, Any] | None = None,
        tokenizer: str | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), not {label_smoothing}")
        save_arguments(self, {k: v for k, v in locals().items() if k not in ("self", "__class__")})
        # Channels innermost, as fast kernels read them: what convolutions put out takes its order
        # from their weights (1.2 to 1.4 times as fast in bf16 on a CPU). Other nets stay the same.
        self.net = net.to(memory_format=torch.channels_last)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.label_smoothing = label_smoothing
        self.compiles = compile
        self.class_names = class_names or [str(number) for number in range(num_classes)]
        self.preprocessing = preprocessing
        self.tokenizer = None if tokenizer is None else Tokenizer.from_str(tokenizer)

        # `self.log` would divide by whole rows a process: by 84 where two have 85 and 84.
        self.evaluated_nats = Float32Sum()
        self.evaluated_rows = Float32Sum()
        metrics = _metrics(num_classes)
        self.val_metrics = MetricCollection(dict(metrics), prefix="val/")
        if per_class:
            metrics |= _per_class_metrics(self.class_names)
        self.test_metrics = MetricCollection(dict(metrics), prefix="test/")
        self.confusion_matrix = MulticlassConfusionMatrix(num_classes)  # of the last test

    @property
    def backbone(self) -> nn.Module:
        """What callbacks.BackboneFinetuning freezes at first; only some nets say what it is."""
        backbone: nn.Module = self.net.backbone  # type: ignore[assignment]
        return backbone

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.compiles:
            compile_net(self)

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        """Inputs as the net takes them to logits (B, num_classes)."""
        with as_written(self.net):
            logits: Tensor = self.net(self._as_weights(inputs))
        return logits

    def _as_weights(self, inputs: Any) -> Any:
        """Pictures in the precision of the weights: the data do not know of `bf16-true`."""
        real = isinstance(inputs, Tensor) and inputs.is_floating_point()
        return inputs.to(self.dtype) if real else inputs

    def _step(self, batch: tuple[Tensor, Tensor], stage: str) -> tuple[Tensor, Tensor]:
        inputs, targets = batch
        inputs = self._as_weights(inputs)
        logits = self.net(inputs) if stage == "train" else self(inputs)  # (B, num_classes)
        smoothing = self.label_smoothing if stage == "train" else 0.0
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
        return loss, logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss, logits = self._step(batch, "train")
        interval: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (self.global_step + 1) % interval == 0:
            targets = batch[1] if batch[1].ndim == 1 else batch[1].argmax(dim=1)  # (B,)
            accuracy = (logits.argmax(dim=1) == targets).float().mean()
            self.log("train/loss", loss.detach(), prog_bar=True, sync_dist=True)
            self.log("train/accuracy", accuracy, sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        loss, logits = self._step(batch, "val")
        self._evaluate(loss, logits, batch[1], self.val_metrics)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        loss, logits = self._step(batch, "test")
        self._evaluate(loss, logits, batch[1], self.test_metrics)
        self.confusion_matrix.update(logits, batch[1])
        return {"loss": loss, "logits": logits}

    def _evaluate(
        self, loss: Tensor, logits: Tensor, targets: Tensor, metrics: MetricCollection
    ) -> None:
        if len(targets):  # more processes than rows: some have none, and compute all the same
            metrics.update(logits.float(), targets)
            self.evaluated_nats.update(loss * len(targets))
            self.evaluated_rows.update(len(targets))

    def _log_evaluation(self, stage: str, metrics: MetricCollection) -> None:
        values = metrics.compute()
        loss = self.evaluated_nats.compute() / self.evaluated_rows.compute()
        self.log(f"{stage}/loss", loss)
        self.log(f"{stage}/accuracy", values.pop(f"{stage}/accuracy"), prog_bar=stage == "val")
        self.log_dict(values)
        for metric in (metrics, self.evaluated_nats, self.evaluated_rows):
            metric.reset()

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val", self.val_metrics)

    def on_test_epoch_start(self) -> None:
        self.confusion_matrix.reset()

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test", self.test_metrics)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs = batch[0] if isinstance(batch, list | tuple) else batch
        return self(inputs).float().softmax(dim=1)  # (B, num_classes)

    @torch.inference_mode()
    def classify(
        self, samples: Sequence[Image.Image | Tensor] | Tensor | Sequence[str] | str
    ) -> list[tuple[str, float]]:
        """Name what raw pictures show, or what raw texts are.

        Args:
            samples: PIL images, or tensors (C, height, width), uint8 in 0…255 or float in 0…1; or
                texts, or a single one.

        Returns:
            The most likely class of each sample and its probability.

        Raises:
            ValueError: If the task does not know how its training samples were prepared.
        """
        inputs = self._inputs(samples)
        training = self.training
        self.eval()
        confidence, label = self(inputs).float().softmax(dim=1).max(dim=1)  # (B,), (B,)
        self.train(training)
        return [
            (self.class_names[i], p)
            for i, p in zip(label.tolist(), confidence.tolist(), strict=True)
        ]

    def _inputs(self, samples: Any) -> Any:
        if isinstance(samples, str):
            samples = [samples]
        if len(samples) and all(isinstance(sample, str) for sample in samples):
            if self.tokenizer is None:
                raise ValueError(
                    "this Classifier was built without `tokenizer`; it takes no raw texts."
                )
            inputs = texts_to_inputs(samples, self.tokenizer)
            return {name: tensor.to(self.device) for name, tensor in inputs.items()}
        if self.preprocessing is None:
            raise ValueError(
                "this Classifier was built without `preprocessing`; it takes no raw pictures."
            )
        return images_to_inputs(samples, self.preprocessing).to(self.device)

    def decode_tokens(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token, for people to read.

        Raises:
            ValueError: If the task has no tokenizer.
        """
        if self.tokenizer is None:
            raise ValueError("this Classifier was built without `tokenizer`; it knows no words.")
        return [self.tokenizer.decode([token], skip_special_tokens=False) for token in tokens]

    @torch.no_grad()
    def attention(self, inputs: dict[str, Tensor]) -> Tensor | None:
        """How much each token counts for the answer, (B, T); None where the net weighs none."""
        weights = getattr(self.net, "attention_weights", None)
        return None if weights is None else weights(inputs)

    def configure_model(self) -> None:
        shard(self)

    def configure_optimizers(self) -> Any:
        return configure(self, self.optimizer, self.lr_scheduler)


def _metrics(num_classes: int) -> dict[str, Metric | MetricCollection]:
    plain: dict[str, Any] = {"num_classes": num_classes, "validate_args": False}
    return {
        "accuracy": MulticlassAccuracy(average="micro", **plain),
        "f1": MulticlassF1Score(**plain),
        "precision": MulticlassPrecision(**plain),
        "recall": MulticlassRecall(**plain),
        "auroc": MulticlassAUROC(**plain),
        "ece": MulticlassCalibrationError(n_bins=15, **plain),
    }


def _per_class_metrics(class_names: list[str]) -> dict[str, Metric | MetricCollection]:
    plain: dict[str, Any] = {
        "num_classes": len(class_names),
        "average": None,
        "validate_args": False,
    }
    kinds = {"precision": MulticlassPrecision, "recall": MulticlassRecall, "f1": MulticlassF1Score}
    return {
        f"{name}_per_class": ClasswiseWrapper(kind(**plain), labels=class_names, prefix=f"{name}/")
        for name, kind in kinds.items()
    }
