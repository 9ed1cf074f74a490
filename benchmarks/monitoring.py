"""What watching a run costs: `python -m benchmarks.monitoring`.

`train.py fit` with configs/trainer/monitor.yaml (speed and MFU, learning rate, gradient norms,
memory; logged every 50 steps to metrics.csv) for the MLP of configs/mnist/mlp.yaml at batch 128
and for the small GPT of benchmarks.language. Within one run its callbacks are there for 50 steps,
away for 100, there for 50, and so on: each 50 steps hold one logging, and a machine that grows
slower does so for both. The ratio is taken in each such group of 200 steps; the median is told.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import lightning as L
import torch

from benchmarks.language import fit
from benchmarks.timer import WATCHED, WINDOW, Alternation
from benchmarks.trainer import NoiseMNIST, ours
from train import prepare_process

GROUPS = {"mlp": 40, "gpt": 8}  # of four windows; one more before them is a warm-up


def groups(seconds: list[float]) -> list[tuple[float, float]]:
    """Seconds a step without and with the callbacks, of each group of windows but the first."""
    found = []
    for start in range(len(WATCHED), len(seconds) - len(WATCHED) + 1, len(WATCHED)):
        group = list(zip(seconds[start : start + len(WATCHED)], WATCHED, strict=True))
        without, watched = (
            sum(second for second, there in group if there is which) / 2 / WINDOW
            for which in (False, True)
        )
        found.append((without, watched))
    return found


def flags(number: int) -> list[str]:
    """What is added to a benchmark's own command line, for so many groups."""
    steps = (number + 1) * len(WATCHED) * WINDOW + 1
    return [
        *("--config", "configs/trainer/monitor.yaml", "--trainer.log_every_n_steps", str(WINDOW)),
        *("--trainer.max_epochs", "-1", "--trainer.max_steps", str(steps)),
        *("--trainer.limit_train_batches", "1.0", "--trainer.limit_val_batches", "0"),
        *("--checkpoint.monitor", "null", "--test_after_fit", "false"),
        "--trainer.callbacks+=benchmarks.timer.Alternation",
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitoring", description=__doc__)
    parser.add_argument("--groups", type=int, help="groups of 200 steps (default: MLP 40, GPT 8)")
    parser.add_argument("--write", type=Path, help="a Markdown file for the table")
    options = parser.parse_args()
    if options.groups is not None and options.groups < 1:
        parser.error(f"--groups must be 1 or more, not {options.groups}")
    prepare_process()
    numbers = GROUPS if options.groups is None else dict.fromkeys(GROUPS, options.groups)
    lines = [
        "# What watching a run costs",
        "",
        f"`python -m benchmarks.monitoring`, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPU "
        f"cores ({platform.machine()}), {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, lightning {L.__version__}; one logging in {WINDOW} steps.",
        "",
        "| net | a step without | a step with | ratio (median; quartiles) | groups |",
        "| --- | --- | --- | --- | --- |",
    ]
    print("\n".join(lines), flush=True)
    for name, number in numbers.items():
        if name == "mlp":
            ours("mlp", NoiseMNIST(128), *flags(number))
        else:
            with tempfile.TemporaryDirectory() as folder:
                text = Path(folder) / "text.txt"
                text.write_text("".join(map(chr, torch.randint(48, 112, (400_000,)).tolist())))
                fit("small", 0.0, text, *flags(number))
        lines.append(row(name, groups(Alternation.seconds)))
        print(lines[-1], flush=True)
    if options.write:
        options.write.write_text("\n".join(lines) + "\n")


def row(name: str, found: list[tuple[float, float]]) -> str:
    """A line of the table."""
    without, watched = (1000 * statistics.median(column) for column in zip(*found, strict=True))
    ratios = sorted(b / a for a, b in found)
    low, middle, high = (
        statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    )
    return (
        f"| {name} | {without:.3f} ms | {watched:.3f} ms | {middle:.4f} x ({low:.4f} to "
        f"{high:.4f}) | {len(found)} |"
    )


if __name__ == "__main__":
    main()
