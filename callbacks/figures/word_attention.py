"""Which words decided? The weights of a net with attention, drawn over test texts."""

from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from engine.run.figures import publish
from plotting.colored_text import passages_page, prediction_passage, text_figure


class Weighed(NamedTuple):
    """A test text with the weights of its tokens and what the net said."""

    tokens: Tensor  # (T,)
    weights: Tensor  # (T,)
    target: int
    predicted: int
    confidence: float


class WordAttention(Callback):
    """Draws `figures/word_attention.png` and `.html` after a test: words, coloured by their weight.

    One text is taken of each test batch; of those, as many as asked for, evenly spaced. The task
    must have `class_names`, `words(tokens)` and `attention(inputs)`, and its `test_step` return
    `{"logits": (B, K)}`. Of several processes, the first one's texts are drawn.

    Args:
        texts: How many texts to draw, at least 1.
    """

    def __init__(self, texts: int = 12) -> None:
        if texts < 1:
            raise ValueError(f"texts must be at least 1, not {texts}.")
        self.texts = texts

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.kept: list[Weighed] = []
        self.drawable = hasattr(pl_module, "attention") and hasattr(pl_module, "decode_tokens")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not self.drawable:
            return
        inputs, targets = batch
        first = {k: v[:1] for k, v in inputs.items()} if isinstance(inputs, dict) else None
        weights = None if first is None else cast(Any, pl_module).attention(first)  # (1, T)
        if first is None or weights is None:
            self.drawable = False
            return
        inside = first["attention_mask"][0].bool()  # (T,)
        confidence, predicted = outputs["logits"][0].float().softmax(dim=-1).max(dim=-1)
        self.kept.append(
            Weighed(
                first["input_ids"][0][inside].cpu(),
                weights[0][inside].float().cpu(),
                int(targets[0]),
                int(predicted),
                float(confidence),
            )
        )

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.drawable or not self.kept:
            rank_zero_warn(
                "WordAttention draws nothing: it shows the weights of a net that weighs words, as "
                "modules.nets.AttentionRNN does. Leave the callback out for other nets."
            )
            return
        task = cast(Any, pl_module)
        places = np.linspace(0, len(self.kept) - 1, min(self.texts, len(self.kept)))
        names = [str(name) for name in task.class_names]
        passages = [
            prediction_passage(
                task.decode_tokens(tokens.tolist()), names, target, said, sure, weights.tolist()
            )
            for tokens, weights, target, said, sure in (
                self.kept[n] for n in places.round().astype(int)
            )
        ]
        self.kept = []
        heading = "The deeper the colour, the more a word counts"
        publish(trainer, "word_attention", lambda: text_figure(heading, passages))
        folder = trainer.log_dir  # a broadcast: every process must ask
        if trainer.is_global_zero and folder is not None:
            page = Path(folder, "figures", "word_attention.html")
            page.write_text(passages_page(heading, passages), encoding="utf-8")
