"""Overhead of the Trainer and speed of whole-batch loading: `python -m benchmarks.trainer`.

(a) Milliseconds per training step at batch size 128 for the MLP and the CNN: a bare PyTorch loop,
    the Trainer with all features disabled, and `train.py fit` with a config of this repository: its
    callbacks, figures, CSV log, checkpoints and progress bar. Network, data and optimizer are
    equal; the three alternate, and ratios are taken round by round.
(b) Samples per second of the input pipeline alone: whole batches against torchvision's MNIST with
    ToTensor and Normalize per item.

MNIST from DATA_DIR if present, else noise of the same size.
"""

import contextlib
import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from benchmarks.table import Page, parser, ratio
from benchmarks.timer import StepTimer, seconds_per_step
from cli.main import main as train
from datamodules import MNIST
from engine.errors import UserError
from engine.process import prepare_process
from modules.nets import CNN, MLP

BATCH = 128
STEPS = {"mlp": 400, "cnn": 40}
NETS: dict[str, type[nn.Module]] = {"mlp": MLP, "cnn": CNN}


class NoiseMNIST(MNIST):
    """Noise with the shape and size of MNIST."""

    def prepare_data(self) -> None:
        """Do nothing: the data are random."""

    def load(self) -> dict[str, tuple[Tensor, Tensor]]:
        sizes = {"train": 55_000, "val": 5_000, "test": 10_000}
        return {
            split: (
                torch.randint(0, 256, (size, 1, 28, 28), dtype=torch.uint8),
                torch.randint(0, 10, (size,)),
            )
            for split, size in sizes.items()
        }


def benchmark_images() -> MNIST:
    """Return MNIST if present, else noise of its size."""
    data = MNIST(BATCH)
    try:
        data.prepare_data()
    except UserError:
        data = NoiseMNIST(BATCH)
    data.setup("fit")
    return data


class Bare(L.LightningModule):
    """A minimal LightningModule."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer(self.net)


def optimizer(net: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of all three loops."""
    return torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.0, fused=True)


def bare_loop(name: str, data: MNIST) -> float:
    """Return the seconds per step of a bare PyTorch loop."""
    torch.manual_seed(0)
    net = NETS[name]().train().to(memory_format=torch.channels_last)  # as ours
    steps = optimizer(net)
    images, labels = data.splits["train"]
    starts = []
    for rows in torch.randperm(len(labels)).split(BATCH)[: STEPS[name]]:
        starts.append(time.perf_counter())
        batch = images.index_select(0, rows), labels.index_select(0, rows)
        inputs, targets = data.on_after_batch_transfer(batch, 0)
        loss = F.cross_entropy(net(inputs), targets)
        steps.zero_grad()
        loss.backward()
        steps.step()
    starts.append(time.perf_counter())
    return seconds_per_step(starts)


def minimal_trainer(name: str, data: MNIST) -> float:
    """Return the seconds per step of the Trainer with all features disabled."""
    L.seed_everything(0)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        limit_train_batches=STEPS[name],
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[StepTimer()],
    )
    net = NETS[name]().to(memory_format=torch.channels_last)
    trainer.fit(Bare(net), datamodule=data)
    return StepTimer.last


def ours(name: str, data: MNIST, *more: str) -> float:
    """Return the seconds per step of `train.py fit` with configs/mnist/<name>.yaml and flags."""
    with tempfile.TemporaryDirectory() as runs_dir:
        arguments = ["fit", "--config", f"configs/mnist/{name}.yaml", "--runs_dir", runs_dir]
        arguments += ["--data.augmentation", "null", "--model.lr_scheduler", "null"]
        arguments += ["--auto_precision", "false"]
        arguments += ["--model.optimizer.lr", "0.001", "--model.optimizer.weight_decay", "0.0"]
        arguments += ["--data", f"{type(data).__module__}.{type(data).__qualname__}"]
        arguments += ["--data.batch_size", str(BATCH), "--test_after_fit", "false"]
        arguments += ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"]
        arguments += [f"--trainer.limit_train_batches={STEPS[name]}"]
        arguments += ["--trainer.callbacks+=benchmarks.timer.StepTimer"]
        with contextlib.redirect_stdout(io.StringIO()):  # keep only the page on stdout
            train([*arguments, *more])
    return StepTimer.last


@contextlib.contextmanager
def tutorial_dataset(data: MNIST, samples: int) -> Iterator[datasets.MNIST]:
    """Yield torchvision's MNIST with ToTensor and Normalize per item, as in most tutorials."""
    images, labels = data.splits["train"]
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (samples, 28, 28))
        header_labels = bytes([0, 0, 8, 1]) + samples.to_bytes(4, "big")
        for split in ("train", "t10k"):
            (raw / f"{split}-images-idx3-ubyte").write_bytes(
                header + images[:samples].numpy().tobytes()
            )
            (raw / f"{split}-labels-idx1-ubyte").write_bytes(
                header_labels + labels[:samples].to(torch.uint8).numpy().tobytes()
            )
        transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(data.mean, data.std)]
        )
        yield datasets.MNIST(folder, train=True, transform=transform)


def per_item_pipeline(data: MNIST, samples: int = 12_800) -> float:
    """Return the samples per second of the per-item pipeline."""
    with tutorial_dataset(data, samples) as dataset:
        loader = DataLoader(dataset, batch_size=BATCH, shuffle=True)
        started = time.perf_counter()
        for _inputs, _targets in loader:
            pass
        return samples / (time.perf_counter() - started)


def whole_batch_pipeline(data: MNIST) -> float:
    """Return the samples per second of one epoch of our DataModule, normalization included."""
    loader = data.train_dataloader()
    started = time.perf_counter()
    for batch in loader:
        data.on_after_batch_transfer(batch, 0)
    return len(loader) * BATCH / (time.perf_counter() - started)


def rounds(candidates: dict[str, Callable[[], float]], number: int) -> dict[str, list[float]]:
    """Measure all candidates alternately, `number` times after a warm-up round."""
    results: dict[str, list[float]] = {name: [] for name in candidates}
    for round in range(number + 1):
        for name, candidate in candidates.items():
            value = candidate()
            if round:
                results[name].append(value)
    return results


def main() -> None:
    """Measure and print tables; `--write` also writes them to a file."""
    options = parser("trainer", __doc__, rounds=7).parse_args()
    prepare_process()
    warnings.filterwarnings("ignore", message=".*have no `validation_step`")
    data = benchmark_images()
    page = Page(
        "trainer",
        "Speed of the Trainer and of whole batches",
        f"{type(data).__name__}, batch {BATCH}, medians of {options.rounds} rounds.",
        L,
    )
    page.table(
        *("net", "bare loop", "Trainer, all off", "`train.py fit`"),
        *("difference to all off", "ratio to bare"),
    )
    for name in NETS:
        results = rounds(
            {
                "bare": lambda name=name: bare_loop(name, data),  # type: ignore[misc]
                "off": lambda name=name: minimal_trainer(name, data),  # type: ignore[misc]
                "ours": lambda name=name: ours(name, data),  # type: ignore[misc]
            },
            options.rounds,
        )
        medians = [f"{1000 * statistics.median(values):.3f} ms" for values in results.values()]
        extra = 1000 * statistics.median(
            a - b for a, b in zip(results["ours"], results["off"], strict=True)
        )
        against = ratio(results["ours"], results["bare"])
        page.row(name, *medians, f"{extra:+.3f} ms", f"{against:.3f} x")
    results = rounds(
        {"items": lambda: per_item_pipeline(data), "batches": lambda: whole_batch_pipeline(data)},
        options.rounds,
    )
    page.table("input pipeline", "samples/s")
    page.row("torchvision's MNIST, per item", f"{statistics.median(results['items']):,.0f}")
    page.row("ours, whole batches", f"{statistics.median(results['batches']):,.0f}")
    page.row("ratio", f"{ratio(results['batches'], results['items']):.1f} x")
    page.write(options.write)


if __name__ == "__main__":
    main()
