"""Day 32: fine-tuning BERT: learning rates by layer, a linear schedule, the metrics of GLUE."""

import numpy as np


def layer_rates(layers: int, lr: float, decay: float) -> dict[str, float]:
    """Return the learning rate of each part of an encoder.

    The head has lr, the last layer lr · decay, each earlier one decay times the next, and the
    embeddings decay times the first layer.

    Args:
        layers: Number of layers.
        lr: Learning rate of the head.
        decay: Factor in (0, 1].

    Returns:
        Rates of "embeddings", "layer.0" to "layer.{layers - 1}", and "head".

    Source: Sun et al. 2019 (arXiv:1905.05583), section 5.4.3.
    """
    raise NotImplementedError


def linear_schedule(step: int, warmup: int, total_steps: int) -> float:
    """Return the factor of the learning rate in BERT's schedule.

    It grows linearly from 0 at step 0 to 1 at step `warmup` and falls linearly to 0 at total_steps,
    where it stays.

    Args:
        step: Step, from 0.
        warmup: Steps of the warm-up; 0 begins with 1.
        total_steps: Step at which the factor is 0, > warmup.

    Source: Devlin et al. 2019 (arXiv:1810.04805), appendix A.2.
    """
    raise NotImplementedError


def matthews_correlation(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return Matthews' correlation of two binary variables, the metric of CoLA.

        (TP · TN - FP · FN) / √((TP + FP)(TP + FN)(TN + FP)(TN + FN))

    It is 0 if the denominator is 0. Show that it is the Pearson correlation of the 0/1 variables.

    Args:
        labels: 0 or 1, (N,).
        predictions: 0 or 1, (N,).

    Source: Matthews 1975; Wang et al. 2018 (arXiv:1804.07461).
    """
    raise NotImplementedError


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Return Spearman's rank correlation, the metric of STS-B.

    Equal values have their mean rank.

    Args:
        x: Values, (N,), not all equal.
        y: Values, (N,), not all equal.

    Source: Spearman 1904.
    """
    raise NotImplementedError
