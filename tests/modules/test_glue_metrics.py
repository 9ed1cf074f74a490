"""The metrics that GLUE prescribes equal those of scikit-learn and SciPy."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import scipy.stats
import sklearn.metrics
import torch
import yaml
from lightning.pytorch.cli import instantiate_class
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import modules
from tests.support import QUIET, ROOT


def evaluate(task: str, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
    """Return the metrics that a config logs for given outputs of the network."""
    config = yaml.safe_load(Path(ROOT, f"configs/glue/{task}.yaml").read_text())["model"]
    described = {
        name: {"class_path": metric} if isinstance(metric, str) else metric
        for name, metric in config["init_args"].get("metrics", {}).items()
    }
    metrics = {name: instantiate_class((), metric) for name, metric in described.items()}
    kind = getattr(modules, config["class_path"].rpartition(".")[2])
    sizes = {} if kind is modules.Regressor else {"num_classes": 2}
    module = kind(nn.Identity(), metrics=metrics, **sizes)
    data = DataLoader(TensorDataset(outputs, targets), batch_size=16)
    trainer = L.Trainer(accelerator="cpu", **QUIET)
    (logged,) = trainer.validate(module, data, verbose=False)
    return logged


def test_classification_metrics_equal_scikit_learn() -> None:
    logits, targets = torch.randn(50, 2), (torch.rand(50) < 0.7).long()
    logged = evaluate("mrpc", logits, targets)
    predicted = logits.argmax(dim=1)
    expected = {
        "val/f1": sklearn.metrics.f1_score(targets, predicted),
        "val/accuracy": sklearn.metrics.accuracy_score(targets, predicted),
    }
    assert {name: logged[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    matthews = evaluate("cola", logits, targets)["val/matthews"]
    assert matthews == pytest.approx(
        sklearn.metrics.matthews_corrcoef(targets, predicted), abs=1e-6
    )


def test_correlations_equal_scipy_with_ties() -> None:
    targets = torch.randint(6, (50,)).float()
    predictions = targets + torch.randn(50).round()  # ties in both
    logged = evaluate("stsb", predictions, targets)
    expected = {
        "val/pearson": scipy.stats.pearsonr(targets, predictions).statistic,
        "val/spearman": scipy.stats.spearmanr(targets, predictions).statistic,
    }
    assert {name: logged[name] for name in expected} == pytest.approx(expected, abs=1e-5)
