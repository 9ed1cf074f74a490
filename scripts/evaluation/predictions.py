"""Predictions of a classifier on a split, with their statistics."""

from itertools import repeat
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from modules import Classifier
from plotting.colored_text import Passage
from plotting.mistakes import Predictions, displayable_samples, prediction_passages
from scripts.evaluation.statistics import Interval, fit_temperature, metrics_of, with_intervals

ROWS, COLUMNS = 4, 8  # of the grid of mistakes
Reliability = tuple[float, float]  # cross-entropy, calibration error


class Evaluation(NamedTuple):
    """Predictions and statistics of one checkpoint."""

    logits: Tensor  # (N, K)
    labels: Tensor  # (N,)
    worst: Predictions | None  # the most confident mistakes, for images
    texts: list[Passage] | None  # the same, for texts
    metrics: dict[str, Interval]
    temperature: float | None
    before: Reliability
    after: Reliability | None


def evaluate_checkpoint(
    task: Classifier, data: Any, split: str, resamples: int, confidence: float
) -> Evaluation:
    """Evaluate a classifier on one split of its data.

    Args:
        task: The classifier.
        data: DataModule after `setup`.
        split: `test` or `val`.
        resamples: Number of bootstrap resamples.
        confidence: Level of the intervals, in (0, 1).
    """
    logits, labels, worst = predict(task, data, split)
    temperature = after = None
    if split != "val":
        temperature = fit_temperature(*predict(task, data, "val")[:2])
        after = reliability(logits / temperature, labels)
    metrics = with_intervals(logits, labels, resamples, confidence)
    texts = None
    if worst is not None and worst.samples.ndim == 2:
        raw_texts = data.raw_texts(split) if hasattr(data, "raw_texts") else None
        texts = prediction_passages(worst, task.class_names, task.decode_tokens, raw_texts)
        worst = None
    return Evaluation(
        logits, labels, worst, texts, metrics, temperature, reliability(logits, labels), after
    )


@torch.inference_mode()
def predict(task: Classifier, data: Any, split: str) -> tuple[Tensor, Tensor, Predictions | None]:
    """Return logits and labels of a split, and its most confident mistakes."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task.to(device).eval()
    logits, labels, worst = [], [], None
    has_rows = hasattr(data, "evaluation_rows")
    rows: Any = data.evaluation_rows(split) if has_rows else repeat(None)
    for batch, indices in zip(getattr(data, f"{split}_dataloader")(), rows, strict=False):
        inputs, targets = data.on_after_batch_transfer(move_data_to_device(batch, device), 0)
        outputs = task(inputs).float()  # (B, K)
        samples = displayable_samples(inputs)
        if samples is not None:
            new = Predictions.from_logits(samples, outputs, targets, indices)
            parts = [new] if worst is None else [worst, new]
            worst = Predictions.concatenate(parts).most_confident_errors(ROWS * COLUMNS)
        logits.append(outputs.cpu())
        labels.append(targets.cpu())
    return torch.cat(logits).clone(), torch.cat(labels).clone(), worst and worst.cpu()


def reliability(logits: Tensor, labels: Tensor) -> Reliability:
    """Return cross-entropy and expected calibration error."""
    metrics = metrics_of(logits.shape[1])
    return metrics["loss"](logits, labels).item(), metrics["ece"](logits, labels).item()
