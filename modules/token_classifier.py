"""LightningModule for token classification: a tag for each word, such as named entities."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from engine.distributed.sharding import shard
from engine.errors import UserError
from engine.eval_mode import eval_mode
from modules.adapters.methods import Adapter
from modules.adapters.task import AdapterTask
from modules.inference.raw_methods import TagsTexts
from modules.optim.schedules import configure
from modules.training.entities import EntityScores
from modules.training.gradients import TokenMeanGradient, mean_over_processes, should_log
from modules.training.hyperparameters import save_arguments
from modules.training.metrics import MeanLoss, TokenAccuracy, log_metrics, stage_metrics
from modules.training.token_loss import TokenLoss
from preprocessing.special_tokens import IGNORE_INDEX
from preprocessing.texts import to_tensors, words_to_arrays

Batch = tuple[dict[str, Tensor], Tensor]


class TokenClassifier(TagsTexts, AdapterTask):
    """Train a network whose `forward(inputs)` returns logits of all tokens, (B, T, num_classes).

    The classes are BIO tags: `B-<kind>` for the first word of an entity, `I-<kind>` for the others
    and `O` outside. The first token of a word has the word's tag as its target; the loss ignores
    all other tokens (Devlin et al. 2019, section 5.3). Logs `<stage>/loss` (nats per word) for
    train, val and test; val and test add `accuracy` of the tags and `precision`, `recall` and `f1`
    of the entities, as CoNLL's conlleval.

    Args:
        net: The network; its sizes come from the data.
        num_classes: Number of tags; linked from the data.
        optimizer: Optimizer class and arguments; AdamW with lr 0.001 by default.
        lr_scheduler: Schedule class and arguments; a constant learning rate by default.
        class_names: The tags in the order of their indices. Linked from the data.
        tokenizer: How words become tokens: a tokenizer as JSON, with truncation and padding. Linked
            from the data.
        adapter: What to train while the other weights of the network are frozen, such as
            modules.adapters.LoRA; all weights are trained by default.
    """

    targets_are_classes = True  # batches are (inputs, targets); forward returns logits

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        class_names: list[str] | None = None,
        tokenizer: str | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        super().__init__()
        if class_names is None:
            raise UserError(
                "TokenClassifier needs `class_names`, the BIO tags: use --data TaggedTexts, or "
                "define them in the data module."
            )
        save_arguments(self)
        self.set_net(net, adapter)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.class_names = class_names
        self.tokenizer = None if tokenizer is None else Tokenizer.from_str(tokenizer)
        self.token_loss = TokenLoss()
        self.gradient = TokenMeanGradient()
        self.metrics = stage_metrics(
            {
                "loss": MeanLoss(),
                "accuracy": TokenAccuracy(),
                "entities": EntityScores(class_names),
            }
        )

    @property
    def backbone(self) -> nn.Module:
        """The part of the network that callbacks.BackboneFinetuning freezes at first."""
        backbone: nn.Module = self.net.backbone  # type: ignore[assignment]
        return backbone

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return logits (B, T, num_classes)."""
        logits: Tensor = self.net(inputs)
        return logits

    def _step(self, batch: Batch, stage: str) -> tuple[Tensor, Tensor]:
        """Return the summed loss in nats and the number of words."""
        inputs, targets = batch
        logits = self(inputs)  # (B, T, C)
        nats, count = self.token_loss(logits, targets), (targets != IGNORE_INDEX).sum()
        if stage != "train":
            predictions = logits.argmax(dim=-1)  # (B, T)
            self.metrics[stage].update(  # type: ignore[operator]
                loss=nats,
                count=count,
                correct=(predictions == targets).sum(),
                predictions=predictions,
                targets=targets,
            )
        return nats, count

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        nats, count = self._step(batch, "train")
        if should_log(self):
            (loss,) = mean_over_processes(self.trainer, count, nats)
            self.log("train/loss", loss, prog_bar=True)
        return self.gradient.loss(self, nats, count, batch[1].numel())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.gradient.rescale(self)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "test")

    def on_validation_epoch_end(self) -> None:
        log_metrics(self, "val")

    def on_test_epoch_end(self) -> None:
        log_metrics(self, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> list[str]:
        """Return the tags of the words of each text, separated by spaces."""
        inputs, targets = batch
        rows = zip(self(inputs).argmax(dim=-1).tolist(), targets.tolist(), strict=True)
        return [
            " ".join(
                self.class_names[index]
                for index, target in zip(*row, strict=True)
                if target != IGNORE_INDEX
            )
            for row in rows
        ]

    def configure_model(self) -> None:
        shard(self)

    def configure_optimizers(self) -> Any:
        return configure(self, self.optimizer, self.lr_scheduler)

    @torch.inference_mode()
    def tag_probabilities(
        self, words: Sequence[Sequence[str]]
    ) -> tuple[NDArray[np.float32], list[dict[int, int]]]:
        assert self.tokenizer is not None  # checked
        arrays, firsts = words_to_arrays(words, self.tokenizer)
        with eval_mode(self.net):
            logits = self({n: t.to(self.device) for n, t in to_tensors(arrays).items()})
        return logits.float().softmax(dim=-1).cpu().numpy(), firsts  # (B, T, C)
