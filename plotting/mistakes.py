"""Select and draw the most confident errors of a classifier."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from engine.run.figures import BLUE, ORANGE, short_names
from plotting.colored_text import Passage, prediction_passage, text_figure
from plotting.denormalize import is_image_batch
from plotting.image_grid import Caption, image_grid

TEXTS_IN_FIGURE = 12  # the text file has all
NO_TOKEN = -1  # after the end of a text


class Predictions(NamedTuple):
    """Some samples with their predictions."""

    samples: Tensor  # images (N, C, H, W), or tokens (N, T) with NO_TOKEN after the end of a text
    targets: Tensor  # (N,)
    predicted: Tensor  # (N,)
    confidences: Tensor  # (N,)
    rows: Tensor  # (N,) row of each sample in the data, -1 if unknown

    @classmethod
    def from_logits(
        cls, samples: Tensor, logits: Tensor, targets: Tensor, rows: Sequence[int] | None = None
    ) -> "Predictions":
        """Make the predictions of a batch from its logits (B, K)."""
        confidences, predicted = logits.float().softmax(dim=-1).max(dim=-1)  # (B,)
        numbers = torch.full_like(targets, -1) if rows is None else targets.new_tensor(rows)
        return cls(samples, targets, predicted, confidences, numbers)

    @classmethod
    def concatenate(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """Concatenate predictions; texts are padded to the longest one."""
        samples = [part.samples for part in parts]
        if samples[0].ndim == 2:
            width = max(tokens.shape[1] for tokens in samples)
            samples = [F.pad(t, (0, width - t.shape[1]), value=NO_TOKEN) for t in samples]
        others = zip(*(part[1:] for part in parts), strict=True)
        return cls(torch.cat(samples), *map(torch.cat, others))

    def most_confident_errors(self, number: int) -> "Predictions":
        """Return the most confident errors, then the least confident correct predictions."""
        is_error = self.predicted != self.targets
        ranking = torch.where(is_error, 1 + self.confidences, 1 - self.confidences)
        order = ranking.topk(min(number, len(ranking))).indices
        return Predictions(*(values[order] for values in self))

    def cpu(self) -> "Predictions":
        return Predictions(*(values.cpu() for values in self))


def displayable_samples(inputs: Any) -> Tensor | None:
    """Return images (B, C, H, W) or tokens (B, T) of a batch, or None if it has neither."""
    if isinstance(inputs, dict) and "input_ids" in inputs:
        padding = ~inputs["attention_mask"].bool()  # (B, T)
        return inputs["input_ids"].masked_fill(padding, NO_TOKEN)  # (B, T)
    return inputs if is_image_batch(inputs) else None


def prediction_passages(
    predictions: Predictions,
    class_names: Sequence[str],
    decode: Callable[[Sequence[int]], list[str]],
    texts: Sequence[str] | None = None,
) -> list[Passage]:
    """Return texts titled with their row, predicted class and true class.

    Args:
        predictions: Predictions for texts.
        class_names: Names of the classes.
        decode: Returns the text of each token, for data without raw texts.
        texts: Raw texts by row.
    """
    passages = []
    for tokens, *values, row in zip(
        predictions.samples, *(v.tolist() for v in predictions[1:]), strict=True
    ):
        if texts is None or row < 0:
            words = decode(tokens[tokens != NO_TOKEN].tolist())
            passages.append(prediction_passage(words, class_names, *values))
            continue
        passage = prediction_passage(texts[row].split(), class_names, *values)
        passages.append(passage._replace(title=f"row {row}: {passage.title}"))
    return passages


def mistakes_text(passages: Sequence[Passage], total: int, errors: int) -> str:
    """Return all passages below a heading, for a text file."""
    blocks = [f"{passage.title}\n{' '.join(passage.words)}\n" for passage in passages]
    return "\n".join([f"{_heading(total, errors, len(passages))}\n", *blocks])


def text_mistakes_figure(passages: Sequence[Passage], total: int, errors: int) -> Figure:
    """Draw the first `TEXTS_IN_FIGURE` passages, one below the other."""
    shown = passages[:TEXTS_IN_FIGURE]
    return text_figure(_heading(total, errors, len(shown)), shown)


def image_mistakes_figure(
    images: np.ndarray,
    predictions: Predictions,
    class_names: list[str],
    columns: int,
    total: int,
    errors: int,
) -> Figure:
    """Draw images (N, H, W, C) row by row, each below its predicted and true class.

    Args:
        images: The samples of `predictions`.
        predictions: Their predictions.
        class_names: Names of the classes.
        columns: Images per row.
        total: Number of samples in the test set.
        errors: Number of errors among them.
    """
    names = short_names(class_names)
    captions = []
    for target, predicted, confidence, _ in zip(
        *(values.tolist() for values in predictions[1:]), strict=True
    ):
        is_correct = predicted == target
        text = f"predicted {names[predicted]} ({confidence:.0%})\n"
        text += "correct" if is_correct else f"true {names[target]}"
        captions.append(Caption(text, BLUE if is_correct else ORANGE))
    longest = max(len(name) for name in names) + len("predicted  (100%)")
    width = max(1.15, 0.06 * longest)  # inches; captions of neighbors must not overlap
    heading = _heading(total, errors, len(images))
    return image_grid(heading, list(images), captions, columns, width, lines=2, fontsize=7.5)


def _heading(total: int, errors: int, cells: int) -> str:
    if errors > cells:
        return f"The {cells} most confident of {errors:,} errors among {total:,} samples"
    if errors == 0:
        heading = f"No errors in {total:,} samples"
    elif errors == 1:
        heading = f"The only error in {total:,} samples"
    else:
        heading = f"All {errors:,} errors of {total:,}"
    return heading + ("; blue: least confident correct predictions" if errors < cells else "")
