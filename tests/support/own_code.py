"""Tasks, data modules and callbacks as users write them for plain LightningCLI."""

from collections.abc import Iterator
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset


class VectorData(L.LightningDataModule):
    """Vectors (N, 4) with float targets (N, 1), in plain data loaders."""

    def __init__(self, batch_size: int = 8, num_samples: int = 32) -> None:
        super().__init__()
        self.save_hyperparameters()

    def _loader(self) -> DataLoader:
        generator = torch.Generator().manual_seed(0)
        inputs = torch.rand(self.hparams.num_samples, 4, generator=generator)
        dataset = TensorDataset(inputs, inputs.sum(dim=1, keepdim=True))
        return DataLoader(dataset, batch_size=self.hparams.batch_size)

    def train_dataloader(self) -> Any:
        return self._loader()

    def val_dataloader(self) -> Any:
        return self._loader()

    def test_dataloader(self) -> Any:
        return self._loader()

    def predict_dataloader(self) -> Any:
        return self._loader()


class TrainingOnly(VectorData):
    """No validation or test data."""

    val_dataloader = L.LightningDataModule.val_dataloader
    test_dataloader = L.LightningDataModule.test_dataloader


class DictBatches(VectorData):
    """Batches are dicts, or lists of dicts."""

    def _loader(self) -> DataLoader:
        samples = [{"x": torch.rand(4), "y": torch.rand(1)} for _ in range(16)]
        return DataLoader(samples, batch_size=4)


class ListBatches(VectorData):
    def _loader(self) -> DataLoader:
        samples = [[torch.rand(4), torch.rand(1), torch.rand(2)] for _ in range(16)]
        return DataLoader(samples, batch_size=4)


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(16):
            x = torch.rand(4)
            yield x, x.sum().unsqueeze(0)


class StreamData(VectorData):
    """An IterableDataset, whose length is unknown."""

    def _loader(self) -> DataLoader:
        return DataLoader(Stream(), batch_size=4)


class TwoClasses(VectorData):
    """Images (1, 4, 4) of two classes; `num_classes` is not defined."""

    def _loader(self) -> DataLoader:
        images, labels = torch.rand(32, 1, 4, 4), torch.arange(32) % 2
        return DataLoader(TensorDataset(images, labels), batch_size=8)


class ThreeClasses(TwoClasses):
    num_classes = 3


class Regression(L.LightningModule):
    """Float targets, no `forward` in the task, metrics under its own names."""

    def __init__(self, net: nn.Module | None = None, lr: float = 0.01) -> None:
        super().__init__()
        self.net = net or nn.Linear(4, 1)
        self.lr = lr

    def _loss(self, batch: Any) -> Tensor:
        if isinstance(batch, dict):
            batch = batch["x"], batch["y"]
        return F.mse_loss(self.net(batch[0]), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self._loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("valid_mse", self._loss(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_mse", self._loss(batch))

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.net(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class AutoEncoder(L.LightningModule):
    """No `net` argument, no validation, plain tensors as inputs, targets ignored."""

    def __init__(self, size: int = 4, hidden_size: int = 2) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(size, hidden_size), nn.Linear(hidden_size, size)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = batch[0].flatten(1).float()
        return F.mse_loss(self.decoder(self.encoder(x)), x)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters())


class GAN(L.LightningModule):
    """Manual optimization with two optimizers."""

    def __init__(self, latent_size: int = 2) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.latent_size = latent_size
        self.generator, self.discriminator = nn.Linear(latent_size, 4), nn.Linear(4, 1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        real = batch[0]
        optimizers: Any = self.optimizers()
        fake = self.generator(torch.randn(len(real), self.latent_size))
        for optimizer, samples in zip(optimizers, (fake, real), strict=True):
            optimizer.zero_grad()
            self.manual_backward(F.softplus(-self.discriminator(samples)).mean())
            optimizer.step()

    def configure_optimizers(self) -> Any:
        parts = (self.generator, self.discriminator)
        return [torch.optim.Adam(part.parameters()) for part in parts], []


class OwnLoaders(Regression):
    """Data loaders within the task, no data module."""

    def train_dataloader(self) -> Any:
        return VectorData().train_dataloader()

    def val_dataloader(self) -> Any:
        return VectorData().val_dataloader()


class Factories(Regression):
    """Optimizer and a required argument from the config."""

    def __init__(self, num_classes: int, optimizer: Any = None) -> None:
        super().__init__(nn.Linear(4, num_classes))
        self.save_hyperparameters()


class CountSteps(L.Callback):
    steps: ClassVar[list[int]] = []

    def __init__(self, every: int = 1) -> None:
        self.every = every

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step % self.every == 0:
            CountSteps.steps.append(trainer.global_step)


class Sign(torch.optim.Optimizer):
    """w -= lr sign(g)"""

    def __init__(self, params: Any, lr: float = 0.01) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight -= group["lr"] * weight.grad.sign()
        return loss


class OwnLogger(CSVLogger):
    """A logger given by class path."""


class LinkedData(VectorData):
    num_classes = 1


class TenOutputs(nn.Module):
    """A network whose number of outputs is fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(inputs.flatten(1))


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(inputs)


class HalfTargets(VectorData):
    """Float targets (N,)."""

    def _loader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.rand(16, 4), torch.rand(16)), batch_size=8)
