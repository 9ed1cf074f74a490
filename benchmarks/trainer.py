"""What the Trainer costs, and what whole batches gain: `python -m benchmarks.trainer`.

(a) Milliseconds a training step at batch 128 for the MLP and the CNN: a bare PyTorch loop, the
    Trainer with everything switched off, and `train.py fit` with a config of ours: its callbacks,
    pictures, CSV log, checkpoints and progress bar. Same net, data and optimizer; all three take
    turns, and the ratios are taken round by round.
(b) Samples a second of the input pipeline alone: ours against torchvision's MNIST with ToTensor and
    Normalize, item by item.

Real MNIST where DATA_DIR has it, else noise of the same size: speed does not depend on it.
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
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from benchmarks.table import Page, parser, ratio
from benchmarks.timer import StepTimer, seconds_a_step
from cli.main import main as train
from datamodules import MNIST
from engine.process import prepare_process
from modules.nets import CNN, MLP

BATCH = 128
STEPS = {"mlp": 400, "cnn": 40}
NETS: dict[str, type[nn.Module]] = {"mlp": MLP, "cnn": CNN}


class NoiseMNIST(MNIST):
    """Pictures of the shape and number of MNIST, where the real ones are not at hand."""

    def prepare_data(self) -> None:
        """Nothing to obtain."""

    def load(self) -> dict[str, tuple[Tensor, Tensor]]:
        sizes = {"train": 55_000, "val": 5_000, "test": 10_000}
        return {
            split: (
                torch.randint(0, 256, (size, 1, 28, 28), dtype=torch.uint8),
                torch.randint(0, 10, (size,)),
            )
            for split, size in sizes.items()
        }


def pictures_to_time() -> MNIST:
    """MNIST where it is at hand, else noise of its size."""
    data = MNIST(BATCH)
    try:
        data.prepare_data()
    except MisconfigurationException:
        data = NoiseMNIST(BATCH)
    data.setup("fit")
    return data


class Bare(L.LightningModule):
    """The least that the Trainer can be given."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer(self.net)


def optimizer(net: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of all three loops."""
    return torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.0, fused=True)


def bare_loop(name: str, data: MNIST) -> float:
    """Seconds a step of a loop that anyone would write."""
    torch.manual_seed(0)
    net = NETS[name]().train().to(memory_format=torch.channels_last)  # as ours
    steps = optimizer(net)
    pictures, labels = data.splits["train"]
    starts = []
    for rows in torch.randperm(len(labels)).split(BATCH)[: STEPS[name]]:
        starts.append(time.perf_counter())
        batch = pictures.index_select(0, rows), labels.index_select(0, rows)
        inputs, targets = data.on_after_batch_transfer(batch, 0)
        loss = F.cross_entropy(net(inputs), targets)
        steps.zero_grad()
        loss.backward()
        steps.step()
    starts.append(time.perf_counter())
    return seconds_a_step(starts)


def switched_off(name: str, data: MNIST) -> float:
    """Seconds a step of the Trainer when it does nothing but train."""
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
    """Seconds a step of `train.py fit --config configs/mnist/<name>.yaml`, with more flags."""
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
        with contextlib.redirect_stdout(io.StringIO()):  # its tables would hide ours
            train([*arguments, *more])
    return StepTimer.last


@contextlib.contextmanager
def tutorial_dataset(data: MNIST, samples: int) -> Iterator[datasets.MNIST]:
    """Torchvision's own MNIST as most tutorials load it: ToTensor and Normalize, item by item."""
    pictures, labels = data.splits["train"]
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (samples, 28, 28))
        header_labels = bytes([0, 0, 8, 1]) + samples.to_bytes(4, "big")
        for split in ("train", "t10k"):
            (raw / f"{split}-images-idx3-ubyte").write_bytes(
                header + pictures[:samples].numpy().tobytes()
            )
            (raw / f"{split}-labels-idx1-ubyte").write_bytes(
                header_labels + labels[:samples].to(torch.uint8).numpy().tobytes()
            )
        transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(data.mean, data.std)]
        )
        yield datasets.MNIST(folder, train=True, transform=transform)


def item_by_item(data: MNIST, samples: int = 12_800) -> float:
    """Samples a second of the tutorials' pipeline."""
    with tutorial_dataset(data, samples) as dataset:
        loader = DataLoader(dataset, batch_size=BATCH, shuffle=True)
        started = time.perf_counter()
        for _inputs, _targets in loader:
            pass
        return samples / (time.perf_counter() - started)


def whole_batches(data: MNIST) -> float:
    """Samples a second of our DataModule: an epoch, normalised."""
    loader = data.train_dataloader()
    started = time.perf_counter()
    for batch in loader:
        data.on_after_batch_transfer(batch, 0)
    return len(loader) * BATCH / (time.perf_counter() - started)


def rounds(contestants: dict[str, Callable[[], float]], number: int) -> dict[str, list[float]]:
    """Let all take turns, once as a warm-up and then `number` times."""
    seen: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(number + 1):
        for name, contestant in contestants.items():
            value = contestant()
            if turn:
                seen[name].append(value)
    return seen


def main() -> None:
    """Measure and print; `--write` also puts the tables into a file."""
    options = parser("trainer", __doc__, rounds=7).parse_args()
    prepare_process()
    warnings.filterwarnings("ignore", message=".*have no `validation_step`")
    data = pictures_to_time()
    page = Page(
        "trainer",
        "Speed of the Trainer and of whole batches",
        f"{type(data).__name__}, batch {BATCH}, medians of {options.rounds} rounds.",
        L,
    )
    page.table(
        *("net", "bare loop", "Trainer, all off", "`train.py fit`"),
        *("over all off", "ratio to bare"),
    )
    for name in NETS:
        seen = rounds(
            {
                "bare": lambda name=name: bare_loop(name, data),  # type: ignore[misc]
                "off": lambda name=name: switched_off(name, data),  # type: ignore[misc]
                "ours": lambda name=name: ours(name, data),  # type: ignore[misc]
            },
            options.rounds,
        )
        middle = [f"{1000 * statistics.median(values):.3f} ms" for values in seen.values()]
        extra = 1000 * statistics.median(
            a - b for a, b in zip(seen["ours"], seen["off"], strict=True)
        )
        against = ratio(seen["ours"], seen["bare"])
        page.row(name, *middle, f"{extra:+.3f} ms", f"{against:.3f} x")
    seen = rounds(
        {"items": lambda: item_by_item(data), "batches": lambda: whole_batches(data)},
        options.rounds,
    )
    page.table("input pipeline", "samples/s")
    page.row("torchvision's MNIST, item by item", f"{statistics.median(seen['items']):,.0f}")
    page.row("ours, whole batches", f"{statistics.median(seen['batches']):,.0f}")
    page.row("ratio", f"{ratio(seen['batches'], seen['items']):.1f} x")
    page.write(options.write)


if __name__ == "__main__":
    main()
