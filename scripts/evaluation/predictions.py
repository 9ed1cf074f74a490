"""Predictions of a classifier on a split, with their statistics."""

from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from callbacks.figures.mistakes import Answers, passages_of, visible
from modules import Classifier
from plotting.colored_text import Passage
from scripts.evaluation.statistics import Interval, fit_temperature, metrics_of, with_intervals

ROWS, COLUMNS = 4, 8  # of the grid of mistakes
Reliability = tuple[float, float]  # cross-entropy, calibration error


class Evaluation(NamedTuple):
    """Predictions and statistics of one checkpoint."""

    logits: Tensor  # (N, K)
    labels: Tensor  # (N,)
    worst: Answers | None  # the most confident mistakes, for images
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
        texts, worst = passages_of(worst, task, task.class_names), None
    return Evaluation(
        logits, labels, worst, texts, metrics, temperature, reliability(logits, labels), after
    )


@torch.inference_mode()
def predict(task: Classifier, data: Any, split: str) -> tuple[Tensor, Tensor, Answers | None]:
    """Return logits and labels of a split, and its most confident mistakes."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task.to(device).eval()
    logits, labels, worst = [], [], None
    for batch in getattr(data, f"{split}_dataloader")():
        inputs, targets = data.on_after_batch_transfer(move_data_to_device(batch, device), 0)
        outputs = task(inputs).float()  # (B, K)
        samples = visible(inputs)
        if samples is not None:
            confidences, predicted = outputs.softmax(dim=1).max(dim=1)  # (B,)
            new = Answers(samples, targets, predicted, confidences).worst(ROWS * COLUMNS)
            worst = new if worst is None else worst.and_also(new).worst(ROWS * COLUMNS)
        logits.append(outputs.cpu())
        labels.append(targets.cpu())
    kept = None if worst is None else Answers(*(values.cpu() for values in worst))
    return torch.cat(logits).clone(), torch.cat(labels).clone(), kept


def reliability(logits: Tensor, labels: Tensor) -> Reliability:
    """Return cross-entropy and expected calibration error."""
    metrics = metrics_of(logits.shape[1])
    return metrics["loss"](logits, labels).item(), metrics["ece"](logits, labels).item()
