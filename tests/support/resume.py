"""Interrupt runs, and compare two runs bit for bit."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch

from tests.support import ROOT

Run = Callable[..., Path]
TINY = ROOT / "tests/configs/digits/tiny.yaml"


class Crash(Exception):
    """A failure of the process during training."""


class CrashAfter(L.Callback):
    """Raise after a number of batches."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def on_train_batch_end(self, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            self.end()

    def end(self) -> None:
        raise Crash


class SendSignalAfter(CrashAfter):
    """Send SIGUSR1 to this process after a number of batches."""

    def end(self) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)


class SendSignalAtStart(L.Callback):
    """Send SIGTERM to this process before the first batch."""

    def on_train_epoch_start(self, *_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


class SendSignalInSetup(L.Callback):
    """Send SIGTERM to this process while the run starts."""

    def setup(self, *_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


AUGMENTED = (
    *("--data.augmentation", "torchvision.transforms.v2.RandomCrop"),
    *("--data.augmentation.size", 8, "--data.augmentation.padding", 1),
)
COSINE = (
    *("--model.lr_scheduler", "modules.optim.WarmupCosine"),
    *("--model.lr_scheduler.warmup_steps", 3),
)
PLATEAU = (
    *("--model.lr_scheduler", "lightning.pytorch.cli.ReduceLROnPlateau"),
    *("--model.lr_scheduler.monitor", "val/loss", "--model.lr_scheduler.patience", 0),
    *("--model.lr_scheduler.threshold", 0.1),  # high enough to reduce the rate every epoch
)
IMAGES = (
    *("--config", TINY, "--model.net", "modules.nets.CNN", "--model.net.channels", "[4]"),
    *("--model.net.hidden_size", 8, "--trainer.log_every_n_steps", 1, "--data.batch_size", 64),
    *("--trainer.limit_train_batches", 10, "--trainer.max_epochs", 3),
)
TEXT = (
    *(
        "--config",
        ROOT / "configs/source/gpt.yaml",
        "--config",
        ROOT / "configs/size/gpt-nano.yaml",
    ),
    *("--model.net.dropout", 0.1, "--data.context", 16, "--data.batch_size", 4),
    *("--trainer.limit_val_batches", 2, "--trainer.log_every_n_steps", 1),
    *("--trainer.precision", "32-true", "--model.lr_scheduler.warmup_steps", 3),
)
PAIRS = (
    *("--config", ROOT / "configs/toy/reversed_words.yaml", "--data.sizes", "[160, 8, 8]"),
    *("--data.batch_size", 16, "--model.net.dim", 16, "--model.net.dropout", 0.1),
    *("--model.label_smoothing", 0.1, "--trainer.log_every_n_steps", 1),
    *("--model.lr_scheduler.warmup_steps", 3, "--trainer.callbacks", "[]"),
)
SMALL_WORDS = (
    *("--data.text", ROOT / "README.md", "--data.min_count", 2, "--data.val_fraction", 0.1),
    *("--data.batch_size", 100, "--model.net.dim", 8, "--trainer.max_epochs", 3),
    *("--trainer.log_every_n_steps", 1, "--trainer.callbacks", "null"),
    *("--checkpoint.every_n_steps", 4),
)
ACROSS_EPOCHS = ("--trainer.check_val_every_n_epoch", "null")
CASES = {
    "mid-epoch": (*IMAGES, *COSINE, "--checkpoint.every_n_steps", 4),
    "augmentation": (*IMAGES, *AUGMENTED, "--checkpoint.every_n_steps", 4),
    "epoch ends": (*IMAGES, *COSINE),
    "plateau": (*IMAGES, *PLATEAU, "--checkpoint.every_n_steps", 3),
    "exponential moving average": (
        *(*IMAGES, "--config", ROOT / "configs/trainer/ema.yaml"),
        *("--checkpoint.every_n_steps", 4),
    ),
    "stochastic weight averaging": (
        *(*IMAGES, "--model.net.batch_norm", "true", "--checkpoint.every_n_steps", 4),
        *("--config", ROOT / "configs/trainer/swa.yaml"),
    ),
    "learning-rate finder": (
        *(*IMAGES, *COSINE, "--config", ROOT / "configs/trainer/lr_finder.yaml"),
        *("--checkpoint.every_n_steps", 4),
    ),
    "batch-size finder": (
        *(*IMAGES, *COSINE, "--config", ROOT / "configs/trainer/batch_size_finder.yaml"),
        *("--trainer.callbacks.max_val", 64, "--data.batch_size", 16),
        *("--checkpoint.every_n_steps", 4),
    ),
    "double precision": (
        *(*IMAGES, "--trainer.precision", "64-true", "--checkpoint.every_n_steps", 4),
    ),
    "rare validation": (*IMAGES, *COSINE, "--trainer.check_val_every_n_epoch", 2),
    "epoch schedule": (
        *(*IMAGES, "--checkpoint.every_n_steps", 7),
        *("--model.lr_scheduler", "torch.optim.lr_scheduler.ExponentialLR"),
        *("--model.lr_scheduler.gamma", 0.5),
    ),
    "accumulation": (
        *(*IMAGES, *COSINE, "--checkpoint.every_n_steps", 1),
        *("--trainer.accumulate_grad_batches", 3),
    ),
    "accumulation schedule": (  # changes in the third epoch, in which the run crashes
        *(*IMAGES, "--checkpoint.every_n_steps", 1, "--trainer.callbacks"),
        *("lightning.pytorch.callbacks.GradientAccumulationScheduler",),
        *("--trainer.callbacks.scheduling", "{0: 1, 2: 2}"),
    ),
    "validation within epochs": (*IMAGES, *COSINE, "--trainer.val_check_interval", 4),
    "text": (
        *(*TEXT, "--trainer.max_steps", 24, "--trainer.val_check_interval", 6),
        *("--checkpoint.every_n_steps", 4),
    ),
    "muon": (
        *(*TEXT, "--config", ROOT / "configs/optimizer/muon.yaml", "--trainer.max_steps", 24),
        *("--trainer.val_check_interval", 6, "--checkpoint.every_n_steps", 4),
    ),
    "translation": (*PAIRS, "--trainer.max_epochs", 3, "--checkpoint.every_n_steps", 4),
    "translation, accumulation": (
        *(*PAIRS, "--trainer.max_epochs", 4, "--checkpoint.every_n_steps", 1),
        *("--trainer.accumulate_grad_batches", 3),
    ),
    "word vectors": ("--config", ROOT / "configs/source/skip_gram.yaml", *SMALL_WORDS),
    "word vectors from counts": (
        *("--config", ROOT / "configs/imdb/glove.yaml", *SMALL_WORDS),
        *("--data.min_pair_count", 0, "--data.benchmarks", "[]", "--data.batch_size", 400),
    ),
    "text, accumulation": (
        *(*TEXT, "--trainer.max_steps", 12, "--trainer.val_check_interval", 6),
        *("--trainer.accumulate_grad_batches", 2, "--checkpoint.every_n_steps", 1),
    ),
}
FAST_CASES = (
    *("mid-epoch", "augmentation", "exponential moving average", "accumulation"),
    *("validation within epochs", "translation", "word vectors"),
)
SHORT = (*CASES["mid-epoch"], "--test_after_fit", "false", "--experiment", "short")


def crash_after(batches: int, callback: type[L.Callback] = CrashAfter) -> tuple[str, ...]:
    """Return the flags of a callback that interrupts the run after a number of batches."""
    return (
        f"--trainer.callbacks+={__name__}.{callback.__name__}",
        f"--trainer.callbacks.batches={batches}",
    )


def assert_equal_nested(a: Any, b: Any, where: str = "") -> None:
    """Compare nested containers of tensors and values bit for bit."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_equal_nested(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal_nested(x, y, f"{where}/{i}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), f"{where}: {(a - b).abs().max()}"
    else:
        assert a == b, f"{where}: {a} and {b}"


def assert_same_run(one: Path, other: Path, but: str = "") -> None:
    """Compare metrics and checkpoints of two runs bit for bit.

    Args:
        one: A run folder.
        other: Another.
        but: Key of the checkpoints that may differ.
    """
    assert (one / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    names = [path.name for path in sorted((one / "checkpoints").iterdir())]
    assert names == [path.name for path in sorted((other / "checkpoints").iterdir())]
    assert {"best.ckpt", "last.ckpt"} <= {*names}
    for name in names:
        a, b = (
            torch.load(folder / "checkpoints" / name, weights_only=True) for folder in (one, other)
        )
        for key in ("callbacks", "hyper_parameters", "datamodule_hyper_parameters", but):
            a.pop(key, None), b.pop(key, None)
        assert_equal_nested(a, b, name)
