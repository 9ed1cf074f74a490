"""What a net gets wrong and is surest about, pictures or texts: more telling than any average."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from engine.run.figures import BLUE, ORANGE, publish, short_names
from plotting.colored_text import Passage, prediction_passage, text_figure
from plotting.denormalize import denormalize, is_image_batch
from plotting.image_grid import Caption, image_grid

SHOWN_TEXTS = 12  # in the figure; the file has all that are kept
ENDED = -1  # stands where a text has no more tokens


class Answers(NamedTuple):
    """Some test samples with what the net said about them."""

    samples: Tensor  # pictures (N, C, H, W), or the tokens of texts (N, T) and -1 after their ends
    targets: Tensor  # (N,)
    predicted: Tensor  # (N,)
    confidences: Tensor  # (N,)

    def worst(self, most: int) -> "Answers":
        """Keeps the surest of the wrong answers, then the least sure of the right ones."""
        wrong = self.predicted != self.targets
        badness = torch.where(wrong, 1 + self.confidences, 1 - self.confidences)
        order = badness.topk(min(most, len(badness))).indices
        return Answers(*(values[order] for values in self))

    def and_also(self, other: "Answers") -> "Answers":
        return Answers.joined([self, other])

    @classmethod
    def joined(cls, parts: Sequence["Answers"]) -> "Answers":
        """All of them, the texts filled up to the longest one."""
        samples = [part.samples for part in parts]
        if samples[0].ndim == 2:
            width = max(tokens.shape[1] for tokens in samples)
            samples = [F.pad(t, (0, width - t.shape[1]), value=ENDED) for t in samples]
        others = zip(*(part[1:] for part in parts), strict=True)
        return cls(torch.cat(samples), *map(torch.cat, others))


class Mistakes(Callback):
    """Draws `figures/mistakes.png` after a test: the wrong answers that the net was surest of.

    Cells without a mistake show the right answers that the net was least sure of, titled in blue.
    Texts stand below each other, as the net reads them, a dozen; `samples/mistakes.txt` has all.
    The task must have `class_names`, for texts `words(tokens)`, and its `test_step` return
    `{"logits": (B, K)}`.

    Args:
        rows: Rows of pictures, at least 1.
        columns: Pictures in a row, at least 1. Of texts, `rows * columns` are kept.
    """

    def __init__(self, rows: int = 4, columns: int = 8) -> None:
        if rows < 1 or columns < 1:
            raise ValueError(f"rows and columns must be at least 1, not {rows} and {columns}.")
        self.rows = rows
        self.columns = columns

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.kept: Answers | None = None
        self.drawable = True
        # How many were asked, how many answered wrongly.
        self.tally = torch.zeros(2, dtype=torch.long, device=pl_module.device)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        inputs, targets = batch
        samples = visible(inputs)
        if samples is None or (samples.ndim == 2 and not hasattr(pl_module, "decode_tokens")):
            if self.drawable:
                rank_zero_warn(
                    "Mistakes draws nothing: it shows grey or RGB pictures (B, 1 or 3, H, W), or "
                    "texts, and this test set holds something else. Leave the callback out for "
                    "such data."
                )
            self.drawable = False
            return
        confidences, predicted = outputs["logits"].float().softmax(dim=-1).max(dim=-1)  # (B,)
        self.tally += torch.stack([torch.ones_like(targets), predicted != targets]).sum(dim=1)
        most = self.rows * self.columns
        # Only a gridful stays in memory, however large the test set is.
        new = Answers(samples, targets, predicted, confidences).worst(most)
        self.kept = new if self.kept is None else self.kept.and_also(new).worst(most)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        kept, self.kept = self.kept, None
        if not self.drawable or kept is None:
            return
        kept = Answers(*(values.cpu() for values in kept))
        tally = cast(Tensor, trainer.strategy.reduce(self.tally, reduce_op="sum")).tolist()
        if trainer.world_size > 1:
            # Objects, since processes with few test pictures bring fewer: tensors must be equal.
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, kept)
            kept = Answers.joined(gathered).worst(self.rows * self.columns)
        names = [str(name) for name in cast(list[str], pl_module.class_names)]
        if kept.samples.ndim == 2:
            self._show_texts(trainer, pl_module, kept, names, tally)
            return
        pictures = denormalize(kept.samples, trainer)
        publish(
            trainer, "mistakes", lambda: mistakes_figure(pictures, kept, names, self.columns, tally)
        )

    def _show_texts(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        kept: Answers,
        names: list[str],
        tally: list[int],
    ) -> None:
        passages = passages_of(kept, pl_module, names)
        publish(trainer, "mistakes", lambda: mistaken_texts_figure(passages, tally))
        folder = trainer.log_dir  # a broadcast: every process must ask
        if trainer.is_global_zero and folder is not None:
            path = Path(folder, "samples", "mistakes.txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(as_text(passages, tally), encoding="utf-8")


def visible(inputs: Any) -> Tensor | None:
    """What `Answers` keeps of pictures or texts; None for what is neither."""
    if isinstance(inputs, dict) and "input_ids" in inputs:
        outside = ~inputs["attention_mask"].bool()  # (B, T)
        return inputs["input_ids"].masked_fill(outside, ENDED)  # (B, T)
    return inputs if is_image_batch(inputs) else None


def passages_of(answers: Answers, task: Any, class_names: Sequence[str]) -> list[Passage]:
    """Texts with what was said about them, in words."""
    return [
        prediction_passage(task.decode_tokens(tokens[tokens != ENDED].tolist()), class_names, *said)
        for tokens, *said in zip(answers.samples, *(v.tolist() for v in answers[1:]), strict=True)
    ]


def as_text(passages: Sequence[Passage], tally: list[int]) -> str:
    """All passages below a heading, as a file for people."""
    told = [f"{passage.title}\n{' '.join(passage.words)}\n" for passage in passages]
    return "\n".join([f"{_heading(tally, len(passages))}\n", *told])


def mistaken_texts_figure(passages: Sequence[Passage], tally: list[int]) -> Figure:
    """Draws the first dozen, one below the other."""
    drawn = passages[:SHOWN_TEXTS]
    return text_figure(_heading(tally, len(drawn)), drawn)


def _heading(tally: list[int], cells: int) -> str:
    asked, wrong = tally
    shown = min(wrong, cells)
    title = f"{wrong:,} of {asked:,} wrong"
    if shown:
        title += ", all shown" if shown == wrong else f", here the {shown} it was surest of"
    if shown < cells:
        title += "; blue: right, but least sure"
    return title


def mistakes_figure(
    pictures: np.ndarray, answers: Answers, class_names: list[str], columns: int, tally: list[int]
) -> Figure:
    """Draws pictures (N, H, W, C) row by row, each under what the net said and what it is."""
    names = short_names(class_names)
    captions = []
    for target, predicted, confidence in zip(*(v.tolist() for v in answers[1:]), strict=True):
        right = predicted == target
        text = f"said {names[predicted]} ({confidence:.0%})\n"
        text += "rightly" if right else f"is {names[target]}"
        captions.append(Caption(text, BLUE if right else ORANGE))
    longest = max(len(name) for name in names) + len("said  (100%)")
    width = max(1.15, 0.06 * longest)  # inches a cell: no caption runs into the next
    heading = _heading(tally, len(pictures))
    return image_grid(heading, list(pictures), captions, columns, width, lines=2, fontsize=7.5)
