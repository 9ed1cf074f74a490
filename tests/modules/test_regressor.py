"""Regressor: learns a number per image and its metrics equal scikit-learn's."""

from functools import partial

import lightning as L
import pytest
import sklearn.metrics
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import PearsonCorrCoef

from engine.errors import UserError
from modules import Regressor
from modules.nets import MLP
from tests.support import QUIET


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return images (B, 1, 8, 8) and 1000 plus 100 times their mean brightness."""
    x = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return x, 1000 + 100 * x.mean(dim=(1, 2, 3))


def loader(count: int, seed: int) -> DataLoader:
    return DataLoader(TensorDataset(*images(count, seed)), batch_size=32)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_learns_targets_of_any_scale(loss: str) -> None:
    torch.manual_seed(0)
    net = MLP(image_size=8, num_classes=1, hidden_sizes=[])
    adam = partial(torch.optim.Adam, lr=0.01)
    task = Regressor(net, loss, target_mean=1000, target_std=12.5, optimizer=adam)
    trainer = L.Trainer(max_epochs=12, accelerator="cpu", **QUIET)
    trainer.fit(task, loader(256, 0), loader(64, 1))
    assert trainer.logged_metrics["val/r2"] > 0.9


def test_metrics_equal_scikit_learn() -> None:
    torch.manual_seed(0)
    predictions, targets = torch.randn(50), torch.randn(50)
    task = Regressor(nn.Identity(), metrics={"pearson": PearsonCorrCoef()})
    trainer = L.Trainer(accelerator="cpu", **QUIET)
    data = DataLoader(TensorDataset(predictions, targets), batch_size=16)
    (metrics,) = trainer.test(task, data, verbose=False)
    expected = {
        "test/loss": sklearn.metrics.mean_squared_error(targets, predictions),
        "test/mae": sklearn.metrics.mean_absolute_error(targets, predictions),
        "test/rmse": sklearn.metrics.root_mean_squared_error(targets, predictions),
        "test/r2": sklearn.metrics.r2_score(targets, predictions),
        "test/pearson": torch.corrcoef(torch.stack([predictions, targets]))[0, 1].item(),
    }
    assert metrics == pytest.approx(expected, abs=1e-5)


def test_network_with_several_outputs_is_a_user_error() -> None:
    with pytest.raises(UserError, match="num_classes 1"):
        Regressor(MLP(image_size=8))(torch.zeros(2, 1, 8, 8))


@pytest.mark.slow
def test_checkpoint_predicts_raw_images(tmp_path) -> None:
    preprocessing = {"in_channels": 1, "image_size": 8, "mean": [0.5], "std": [0.5]}
    net = MLP(image_size=8, num_classes=1, hidden_sizes=[])
    task = Regressor(net, target_mean=3.0, preprocessing=preprocessing)
    trainer = L.Trainer(accelerator="cpu", **QUIET)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    loaded = Regressor.load_from_checkpoint(tmp_path / "task.ckpt", weights_only=True)
    image = torch.zeros(1, 8, 8, dtype=torch.uint8)
    (value,) = loaded.predict(image)
    assert value == pytest.approx(task.eval()(torch.full((1, 1, 8, 8), -1.0)).item())
