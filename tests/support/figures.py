"""A small classifier of digits whose callbacks draw figures, and what figures show."""

from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import CSVLogger
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

MEAN, STD = 0.3, 0.4


class Digits(L.LightningDataModule):
    """300 of scikit-learn's digits, 8 × 8; two processes get unequal parts of the test set."""

    mean, std = (MEAN,), (STD,)

    def setup(self, stage: str) -> None:
        digits = load_digits()
        images = torch.tensor(digits.images[:300] / 16, dtype=torch.float32)[:, None]
        self.data = TensorDataset((images - MEAN) / STD, torch.tensor(digits.target[:300]))

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Subset(self.data, range(200)), 20, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Subset(self.data, range(200, 300)), 50)

    def test_dataloader(self) -> DataLoader:
        parts = {1: [range(300)], 2: [range(30), range(30, 300)]}[self.trainer.world_size]
        return DataLoader(Subset(self.data, parts[self.trainer.global_rank]), 50)


class Task(L.LightningModule):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.class_names = [f"digit {name}" for name in range(10)]

    def _step(self, batch, stage: str) -> dict:
        inputs, targets = batch
        logits = self.net(inputs)
        loss = nn.functional.cross_entropy(logits, targets)
        accuracy = (logits.argmax(1) == targets).float().mean()
        self.log_dict({f"{stage}/loss": loss, f"{stage}/accuracy": accuracy})
        return {"loss": loss, "logits": logits}

    def training_step(self, batch, batch_idx):
        return self._step(batch, "train")

    def validation_step(self, batch, batch_idx):
        return self._step(batch, "val")

    def test_step(self, batch, batch_idx):
        return self._step(batch, "test")

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def small_cnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(64, 10),
    )  # fmt: skip


def make_trainer(folder: Path, *callbacks: L.Callback, **more) -> L.Trainer:
    settings = {
        "logger": CSVLogger(folder, name="", version=""),
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "log_every_n_steps": 2,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return L.Trainer(callbacks=list(callbacks), **(settings | more))


def read_figure(folder: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / "figures" / f"{name}.png").convert("RGB")) / 255


def texts(figure: Figure) -> list[str]:
    everything = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return [artist.get_text() for artist in everything if artist.get_text()]
