"""LightningModule for classification of images and texts."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import ClasswiseWrapper, Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from engine.distributed.sharding import shard
from engine.errors import UserError
from engine.eval_mode import eval_mode
from modules.adapters.methods import Adapter
from modules.adapters.task import AdapterTask
from modules.inference.raw_inputs import RawSample, raw_to_inputs
from modules.inference.raw_methods import ClassifiesSamples
from modules.optim.schedules import configure
from modules.training.compiling import compile_net, eager_mode
from modules.training.gradients import rescale_short_accumulation, should_log
from modules.training.hyperparameters import save_arguments
from modules.training.metrics import MeanLoss


class Classifier(ClassifiesSamples, AdapterTask):
    """Train a network whose `forward(inputs)` returns logits (B, num_classes).

    Logs `<stage>/loss` (nats) and `<stage>/accuracy` for train, val and test; val and test add
    macro-averaged `f1`, `precision`, `recall`, `auroc` and the expected calibration error `ece`
    (Guo et al. 2017, 15 bins). Training metrics are those of single batches, computed every
    `trainer.log_every_n_steps`.

    Training targets are class indices (B,) or, for mixed images, probabilities (B, num_classes).
    In the latter case the accuracy refers to the most probable class.

    Args:
        net: The network; its sizes come from the data.
        num_classes: Number of classes; linked from the data.
        optimizer: Optimizer class and arguments; AdamW with lr 0.001 by default.
        lr_scheduler: Schedule class and arguments; a constant learning rate by default.
        label_smoothing: Probability in [0, 1) distributed over all classes in the training loss;
            val and test losses are always the plain cross-entropy.
        class_weights: Weight of each class in the training loss, for imbalanced data; `balanced`:
            `N / (num_classes · N_class)` for N training samples, as in scikit-learn. Val and test
            losses are not weighted.
        metrics: Further torchmetrics for val and test, by the name under which they are logged:
            `{kappa: {class_path: torchmetrics.CohenKappa, init_args: {task: multiclass, …}}}`.
        compile: Compile the network for training (`net.compile()`): a slow first step, faster steps
            afterwards. Evaluation runs eagerly. On a CPU this requires a C++ compiler.
        per_class: Also log precision, recall and F1 of each class, as `test/f1/<class>`.
        class_names: Names of the classes; their indices by default. Linked from the data.
        preprocessing: How raw images become inputs. Linked from the data.
        tokenizer: How raw texts become inputs: a tokenizer as JSON, with truncation and padding.
            Linked from the data.
        adapter: What to train while the other weights of the network are frozen, such as
            modules.adapters.LoRA; all weights are trained by default.
    """

    targets_are_classes = True  # batches are (inputs, targets); forward returns logits

    def __init__(
        self,
        net: nn.Module,
        num_classes: int = 10,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        label_smoothing: float = 0.0,
        class_weights: list[float] | Literal["balanced"] | None = None,
        metrics: dict[str, Metric] | None = None,
        compile: bool = False,
        per_class: bool = False,
        class_names: list[str] | None = None,
        preprocessing: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        self.balances_classes = class_weights == "balanced"
        if isinstance(class_weights, list) and len(class_weights) != num_classes:
            raise UserError(
                f"model.class_weights has {len(class_weights)} values for {num_classes} classes; "
                "give one weight per class, in the order of the class names."
            )
        save_arguments(self)
        # Channels-last weights make convolutions 1.2 to 1.4 times as fast in bf16 on a CPU.
        self.set_net(net.to(memory_format=torch.channels_last), adapter)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.label_smoothing = label_smoothing
        self.compile_enabled = compile
        self.class_names = class_names or [str(index) for index in range(num_classes)]
        self.tokenizer = None if tokenizer is None else Tokenizer.from_str(tokenizer)
        self.preprocessing = preprocessing
        weights = torch.tensor(class_weights) if isinstance(class_weights, list) else None
        self.register_buffer("class_weights", weights, persistent=False)

        evaluated: dict[str, Any] = {"loss": MeanLoss(), **self.make_metrics(), **(metrics or {})}
        self.metrics = nn.ModuleDict({"val": MetricCollection(evaluated, prefix="val/")})
        if per_class:
            evaluated |= self.make_per_class_metrics()
        self.metrics["test"] = MetricCollection(evaluated, prefix="test/").clone()

    @property
    def backbone(self) -> nn.Module:
        """The part of the network that callbacks.BackboneFinetuning freezes at first."""
        backbone: nn.Module = self.net.backbone  # type: ignore[assignment]
        return backbone

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.compile_enabled:
            compile_net(self)
        if stage == "fit" and self.balances_classes:
            self.class_weights = balanced_weights(getattr(self.trainer, "datamodule", None))

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        """Return logits (B, num_classes) for inputs as the network takes them."""
        with eager_mode(self.net):
            logits: Tensor = self.net(self._cast(inputs))
        return logits

    def _cast(self, inputs: Any) -> Any:
        """Cast float inputs to the precision of the weights, which the data do not depend on."""
        is_float = isinstance(inputs, Tensor) and inputs.is_floating_point()
        return inputs.to(self.dtype) if is_float else inputs

    def loss(self, logits: Tensor, targets: Tensor, stage: str) -> Tensor:
        """Return the mean loss of a batch, without smoothing and weights except for training."""
        if stage != "train":
            return F.cross_entropy(logits, targets)
        weights: Tensor | None = self.class_weights
        return F.cross_entropy(logits, targets, weights, label_smoothing=self.label_smoothing)

    def _step(self, batch: tuple[Any, Tensor], stage: str) -> tuple[Tensor, Tensor]:
        inputs, targets = batch
        logits = self.net(self._cast(inputs)) if stage == "train" else self(inputs)  # (B, C)
        loss = self.loss(logits.float(), targets, stage)
        count = len(targets)
        if stage != "train" and count:  # with more processes than samples, some have none
            self.metrics[stage].update(  # type: ignore[operator]
                preds=logits.float(), target=targets.long(), loss=loss * count, count=count
            )
        return loss, logits

    def training_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> Tensor:
        loss, logits = self._step(batch, "train")
        if should_log(self):
            self.log("train/loss", loss.detach(), prog_bar=True, sync_dist=True)
            self.log("train/accuracy", self.batch_accuracy(logits, batch[1]), sync_dist=True)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        rescale_short_accumulation(self)

    def validation_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> dict[str, Tensor]:
        loss, logits = self._step(batch, "test")
        return {"loss": loss, "logits": logits}

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def _log_metrics(self, stage: str) -> None:
        metrics: MetricCollection = self.metrics[stage]  # type: ignore[assignment]
        values = metrics.compute()
        self.log(f"{stage}/accuracy", values.pop(f"{stage}/accuracy"), prog_bar=stage == "val")
        self.log_dict(values)
        metrics.reset()

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the probabilities of the classes, (B, num_classes)."""
        return self.logits_to_probabilities(
            self(batch[0] if isinstance(batch, list | tuple) else batch)
        )

    def configure_model(self) -> None:
        shard(self)

    def configure_optimizers(self) -> Any:
        return configure(self, self.optimizer, self.lr_scheduler)

    # Multi-class or multi-label: MultiLabelClassifier overrides these and `loss`.

    def make_metrics(self) -> dict[str, Metric]:
        """Return the metrics of val and test."""
        options: Any = {"num_classes": len(self.class_names), "validate_args": False}
        return {
            "accuracy": MulticlassAccuracy(average="micro", **options),
            "f1": MulticlassF1Score(**options),
            "precision": MulticlassPrecision(**options),
            "recall": MulticlassRecall(**options),
            "auroc": MulticlassAUROC(**options),
            "ece": MulticlassCalibrationError(n_bins=15, **options),
        }

    def make_per_class_metrics(self) -> dict[str, Metric]:
        """Return the metrics of each class, for test."""
        options: Any = {
            "num_classes": len(self.class_names),
            "average": None,
            "validate_args": False,
        }
        metrics: dict[str, Metric] = {
            "precision": MulticlassPrecision(**options),
            "recall": MulticlassRecall(**options),
            "f1": MulticlassF1Score(**options),
        }
        return {
            f"{name}_per_class": ClasswiseWrapper(metric, self.class_names, prefix=f"{name}/")
            for name, metric in metrics.items()
        }

    def batch_accuracy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the accuracy of a training batch."""
        labels = targets if targets.ndim == 1 else targets.argmax(dim=1)  # (B,)
        return (logits.argmax(dim=1) == labels).float().mean()

    def logits_to_probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities of the classes, (B, num_classes)."""
        return logits.float().softmax(dim=1)

    # Inference from raw inputs.

    @torch.inference_mode()
    def probabilities(self, samples: RawSample | Sequence[RawSample] | Tensor) -> Tensor:
        """Return the probabilities of all classes for raw images or texts, (B, num_classes).

        Args:
            samples: As for `classify`.
        """
        inputs = raw_to_inputs(samples, self.preprocessing, self.tokenizer, self.device)
        with eval_mode(self.net):
            return self.logits_to_probabilities(self(inputs))

    def decode_tokens(self, tokens: Sequence[int]) -> list[str]:
        """Return the text of each token.

        Raises:
            UserError: If the task has no tokenizer.
        """
        if self.tokenizer is None:
            raise UserError(
                "this Classifier was trained without `tokenizer`; it cannot decode tokens."
            )
        return [self.tokenizer.decode([token], skip_special_tokens=False) for token in tokens]

    @torch.no_grad()
    def attention(self, inputs: dict[str, Tensor]) -> Tensor | None:
        """Return the weight of each token in the prediction, (B, T), if the net has one."""
        weights = getattr(self.net, "attention_weights", None)
        return None if weights is None else weights(inputs)


def balanced_weights(data: Any) -> Tensor:
    """Return the weight N / (num_classes · N_class) of each class of the training data, (C,).

    Args:
        data: The data module, with `class_counts`.

    Raises:
        UserError: If it has none, or a class has no sample.
    """
    if not hasattr(data, "class_counts"):
        raise UserError(
            f"model.class_weights: balanced needs data with `class_counts`; {type(data).__name__} "
            "has none. Give one weight per class."
        )
    counts = torch.tensor(data.class_counts, dtype=torch.float32)
    if not counts.all():
        raise UserError(
            f"model.class_weights: balanced needs samples of every class; class "
            f"{int(counts.argmin())} has none. Give one weight per class."
        )
    return counts.sum() / (len(counts) * counts)
