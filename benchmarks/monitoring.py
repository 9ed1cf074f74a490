"""What watching a run costs: `python -m benchmarks.monitoring`.

`train.py fit` with configs/trainer/monitor.yaml (speed and MFU, learning rate, gradient norms,
memory; logged every 50 steps to metrics.csv) for the MLP of configs/mnist/mlp.yaml at batch 128
and for the small GPT of benchmarks.language. Within one run its callbacks are there for 50 steps,
away for 100, there for 50, and so on: each 50 steps hold one logging, and a machine that grows
slower does so for both. The ratio is taken in each such group of 200 steps; the median is told.
"""

import statistics
import tempfile
from pathlib import Path

import lightning as L

from benchmarks.language import SHAPES, fit, make_shards
from benchmarks.table import Page, parser
from benchmarks.timer import WATCHED, WINDOW, Alternation
from benchmarks.trainer import NoiseMNIST, ours
from engine.process import prepare_process

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
    command = parser("monitoring", __doc__)
    command.add_argument("--groups", type=int, help="groups of 200 steps (default: MLP 40, GPT 8)")
    options = command.parse_args()
    if options.groups is not None and options.groups < 1:
        command.error(f"--groups must be 1 or more, not {options.groups}")
    prepare_process()
    numbers = GROUPS if options.groups is None else dict.fromkeys(GROUPS, options.groups)
    page = Page("monitoring", "What watching a run costs", f"one logging in {WINDOW} steps.", L)
    page.table("net", "a step without", "a step with", "ratio (median; quartiles)", "groups")
    for name, number in numbers.items():
        if name == "mlp":
            ours("mlp", NoiseMNIST(128), *flags(number))
        else:
            with tempfile.TemporaryDirectory() as folder:
                small = SHAPES["cpu"]["small"]
                fit(small, 0.0, "cpu", make_shards(small, Path(folder)), *flags(number))
        page.row(name, *cells(groups(Alternation.seconds)))
    page.write(options.write)


def cells(found: list[tuple[float, float]]) -> list[str]:
    """What a line of the table says."""
    without, watched = (1000 * statistics.median(column) for column in zip(*found, strict=True))
    ratios = sorted(b / a for a, b in found)
    low, middle, high = (
        statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    )
    return [
        f"{without:.3f} ms",
        f"{watched:.3f} ms",
        f"{middle:.4f} x ({low:.4f} to {high:.4f})",
        f"{len(found)}",
    ]


if __name__ == "__main__":
    main()
