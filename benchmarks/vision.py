"""Speed of convolutional networks: `python -m benchmarks.vision`.

Samples per second of training at the batch size of the official PyTorch MNIST example, 64, for its
CNN and for ResNet-20: the example's loop (torchvision's MNIST per item through a DataLoader;
float32; Adadelta) and `train.py fit` with the configs of this repository (whole batches,
channels-last, the precision that `auto_precision` selects). They alternate, and ratios are taken
round by round. The example runs in its own process, because train.py changes settings of the whole
process (it keeps freed memory). The bare column is our network, data and precision in a loop
without the Trainer. Both networks are also compiled (`--model.compile true`); the slow first step
is not counted.

MNIST from DATA_DIR if present, else noise of the same size.
"""

import contextlib
import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmarks.table import Page, parser, ratio
from benchmarks.timer import StepTimer, seconds_per_step
from benchmarks.trainer import benchmark_images, rounds, tutorial_dataset
from cli.main import main as train
from datamodules import MNIST
from engine.precision import recommended_precision
from engine.process import prepare_process
from modules.nets import CNN, ResNet

BATCH = 64
STEPS = {"cnn": 60, "resnet": 40}
NETS: dict[str, type[nn.Module]] = {"cnn": CNN, "resnet": ResNet}


def example_loop(name: str, data: MNIST) -> float:
    """Return the samples per second of the official example's loop."""
    torch.manual_seed(0)
    net = NETS[name]().train()
    optimizer = torch.optim.Adadelta(net.parameters(), lr=1.0)
    starts = []
    with tutorial_dataset(data, BATCH * STEPS[name]) as dataset:
        for inputs, targets in DataLoader(dataset, batch_size=BATCH, shuffle=True):
            starts.append(time.perf_counter())
            optimizer.zero_grad()
            loss = F.nll_loss(F.log_softmax(net(inputs), dim=1), targets)
            loss.backward()
            optimizer.step()
    starts.append(time.perf_counter())
    return BATCH / seconds_per_step(starts)


def example_in_subprocess(name: str) -> float:
    """Run `example_loop` in its own process."""
    command = [sys.executable, "-m", "benchmarks.vision", "--example", name]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.split()[-1])


def bare_loop(name: str, data: MNIST) -> float:
    """Return the samples per second of our network, data and precision without the Trainer."""
    torch.manual_seed(0)
    net = NETS[name]().train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    half = recommended_precision("cpu")[0] == "bf16-mixed"
    images, labels = data.splits["train"]
    starts = []
    for rows in torch.randperm(len(labels)).split(BATCH)[: STEPS[name]]:
        starts.append(time.perf_counter())
        batch = images.index_select(0, rows), labels.index_select(0, rows)
        inputs, targets = data.on_after_batch_transfer(batch, 0)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = net(inputs)
        loss = F.cross_entropy(logits.float(), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    starts.append(time.perf_counter())
    return BATCH / seconds_per_step(starts)


def fit(name: str, data: MNIST, *, compiled: bool = False) -> float:
    """Return the samples per second of `train.py fit` with a config, without augmentation."""
    torch.compiler.reset()  # otherwise the ninth network of the process would silently run eagerly
    with tempfile.TemporaryDirectory() as runs_dir, contextlib.redirect_stdout(io.StringIO()):
        train(
            [
                *("fit", "--config", f"configs/mnist/{name}.yaml", "--runs_dir", runs_dir),
                *("--data", f"{type(data).__module__}.{type(data).__qualname__}"),
                *("--data.batch_size", str(BATCH), "--data.augmentation", "null"),
                *("--model.lr_scheduler", "null", "--test_after_fit", "false"),
                *("--model.compile", str(compiled).lower()),
                *("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"),
                *("--trainer.limit_train_batches", str(STEPS[name])),
                *("--trainer.limit_val_batches", "0", "--checkpoint.monitor", "null"),
                "--trainer.callbacks=[{class_path: benchmarks.timer.StepTimer}]",
            ]
        )
    return BATCH / StepTimer.last


def main() -> None:
    """Measure and print a table; `--write` also writes it to a file."""
    command = parser("vision", __doc__, rounds=5)
    command.add_argument(
        "--example", choices=NETS, help="measure only this network in the example's loop"
    )
    options = command.parse_args()
    if options.example:
        print(example_loop(options.example, benchmark_images()))
        return
    prepare_process()
    data = benchmark_images()
    page = Page(
        "vision",
        "Speed of convolutional networks",
        f"{type(data).__name__}, batch {BATCH}, medians of {options.rounds} rounds. Recommended "
        f"precision: {recommended_precision('cpu')[0]}.",
        L,
    )
    page.table(
        *("net", "the example's loop", "bare, recommended", "`train.py fit`"),
        *("relative to the example", "to bare"),
    )
    for name in NETS:
        candidates: dict[str, Callable[[], float]] = {
            "example": lambda name=name: example_in_subprocess(name),  # type: ignore[misc]
            "bare": lambda name=name: bare_loop(name, data),  # type: ignore[misc]
            "fit": lambda name=name: fit(name, data),  # type: ignore[misc]
            "compiled": lambda name=name: fit(name, data, compiled=True),  # type: ignore[misc]
        }
        results = rounds(candidates, options.rounds)
        for ours in list(candidates)[2:]:
            speeds = [
                f"{statistics.median(results[key]):,.0f}/s" for key in ("example", "bare", ours)
            ]
            ratios = [f"{ratio(results[ours], results[key]):.2f} x" for key in ("example", "bare")]
            page.row(name if ours == "fit" else f"{name}, {ours}", *speeds, *ratios)
    page.write(options.write)


if __name__ == "__main__":
    main()
