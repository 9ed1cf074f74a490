"""Draw the attention weights of a text classifier over test texts."""

from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from engine.guards.requirements import (
    class_logits,
    require_attributes,
    require_classification,
)
from engine.run.figures import publish
from plotting.colored_text import passages_page, prediction_passage, text_figure

HEADING = "Attention weights of test texts (darker: larger weight)"


class AttendedText(NamedTuple):
    """A test text with its attention weights and prediction."""

    tokens: Tensor  # (T,)
    weights: Tensor  # (T,)
    target: int
    predicted: int
    confidence: float


class WordAttention(Callback):
    """Draw `figures/word_attention.png` and `.html` after a test: words colored by their weight.

    One text of each test batch is kept; of those, evenly spaced ones are drawn. The task needs
    `class_names`, `decode_tokens(tokens)` and `attention(inputs)`, and a `test_step` that returns
    `{"logits": (B, K)}`. Texts are those of rank 0.

    Args:
        texts: Number of texts, at least 1.
    """

    def __init__(self, texts: int = 12) -> None:
        if texts < 1:
            raise ValueError(f"WordAttention: texts must be at least 1, got {texts}.")
        self.texts = texts

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        require_classification(self, trainer, pl_module)
        names = ("attention", "decode_tokens")
        require_attributes(self, pl_module, *names, such_as="modules.Classifier")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.kept: list[AttendedText] = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        logits, targets = class_logits(self, outputs, batch)
        if logits is None or not len(logits) or not isinstance(batch[0], dict):
            return
        first = {name: values[:1] for name, values in batch[0].items()}
        weights = cast(Any, pl_module).attention(first)  # (1, T)
        if weights is None:
            return
        is_token = first["attention_mask"][0].bool()  # (T,)
        confidence, predicted = logits[0].float().softmax(dim=-1).max(dim=-1)
        self.kept.append(
            AttendedText(
                first["input_ids"][0][is_token].cpu(),
                weights[0][is_token].float().cpu(),
                int(targets[0]),
                int(predicted),
                float(confidence),
            )
        )

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        kept, self.kept = self.kept, []
        if not kept:
            rank_zero_warn(
                "WordAttention draws nothing: it needs texts and a network with attention weights, "
                "such as modules.nets.AttentionRNN. Remove the callback from trainer.callbacks."
            )
            return
        task = cast(Any, pl_module)
        names = [str(name) for name in task.class_names]
        indices = np.linspace(0, len(kept) - 1, min(self.texts, len(kept))).round().astype(int)
        passages = [
            prediction_passage(
                task.decode_tokens(text.tokens.tolist()),
                names,
                text.target,
                text.predicted,
                text.confidence,
                text.weights.tolist(),
            )
            for text in (kept[index] for index in indices)
        ]
        publish(trainer, "word_attention", lambda: text_figure(HEADING, passages))
        folder = trainer.log_dir  # a collective
        if trainer.is_global_zero and folder is not None:
            page = Path(folder, "figures", "word_attention.html")
            page.write_text(passages_page(HEADING, passages), encoding="utf-8")
