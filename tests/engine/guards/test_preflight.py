"""Preflight: the check of the first batch leaves the task as it was."""

import lightning as L
import torch
from torch.utils.data import DataLoader

from engine.guards.preflight import Preflight
from modules import Classifier
from modules.nets import CNN
from tests.support import QUIET


def test_preflight_keeps_frozen_layers_in_eval_mode() -> None:
    net = CNN(image_size=8, channels=[4, 6], padding=1, batch_norm=True)
    net.features[1].eval()
    task = Classifier(net)
    modes = [module.training for module in task.modules()]
    trainer = L.Trainer(accelerator="cpu", **QUIET)
    batch = (torch.randn(4, 1, 8, 8), torch.randint(10, (4,)))
    trainer.datamodule = L.LightningDataModule.from_datasets()
    trainer.datamodule.train_dataloader = lambda: DataLoader([batch], batch_size=None)
    Preflight().setup(trainer, task, "fit")
    assert [module.training for module in task.modules()] == modes
