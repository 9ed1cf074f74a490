"""What a classifier answers to a split, and what is known of it from the answers."""

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


class Look(NamedTuple):
    """What is known about a checkpoint."""

    logits: Tensor  # (N, K)
    labels: Tensor  # (N,)
    worst: Answers | None  # where examples are pictures
    texts: list[Passage] | None  # the same, where they are texts
    metrics: dict[str, Interval]
    temperature: float | None
    before: Reliability
    after: Reliability | None


def look(task: Classifier, data: Any, split: str, resamples: int, confidence: float) -> Look:
    logits, labels, worst = answers(task, data, split)
    temperature = after = None
    if split != "val":
        temperature = fit_temperature(*answers(task, data, "val")[:2])
        after = reliability(logits / temperature, labels)
    metrics = with_intervals(logits, labels, resamples, confidence)
    texts = None
    if worst is not None and worst.samples.ndim == 2:
        texts, worst = passages_of(worst, task, task.class_names), None
    return Look(
        logits, labels, worst, texts, metrics, temperature, reliability(logits, labels), after
    )


@torch.inference_mode()
def answers(task: Classifier, data: Any, split: str) -> tuple[Tensor, Tensor, Answers | None]:
    """Logits and labels of a split, and the pictures or texts that were answered worst."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task.to(device).eval()
    logits, labels, worst = [], [], None
    for batch in getattr(data, f"{split}_dataloader")():
        inputs, targets = data.on_after_batch_transfer(move_data_to_device(batch, device), 0)
        made = task(inputs).float()  # (B, K)
        samples = visible(inputs)
        if samples is not None:
            confidences, predicted = made.softmax(dim=1).max(dim=1)  # (B,)
            new = Answers(samples, targets, predicted, confidences).worst(ROWS * COLUMNS)
            worst = new if worst is None else worst.and_also(new).worst(ROWS * COLUMNS)
        logits.append(made.cpu())
        labels.append(targets.cpu())
    kept = None if worst is None else Answers(*(values.cpu() for values in worst))
    return torch.cat(logits).clone(), torch.cat(labels).clone(), kept


def reliability(logits: Tensor, labels: Tensor) -> Reliability:
    metrics = metrics_of(logits.shape[1])
    return metrics["loss"](logits, labels).item(), metrics["ece"](logits, labels).item()
