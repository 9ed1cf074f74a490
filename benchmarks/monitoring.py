"""Cost of the monitoring callbacks: `python -m benchmarks.monitoring`.

`train.py fit` with configs/trainer/monitor.yaml (speed and MFU, learning rate, gradient norms,
memory; logged every 50 steps to metrics.csv) for the MLP of configs/mnist/mlp.yaml at batch 128
and for the small GPT of benchmarks.language. Within one run the callbacks are active for 50 steps,
inactive for 100, active for 50, and so on: every 50 steps contain one logging step, and changes of
the machine's speed affect both. The ratio is taken in each group of 200 steps. With --mlflow the
same is measured for configs/logger/mlflow.yaml (SQLite, system metrics) in place of the callbacks.
"""

import statistics
import tempfile
from pathlib import Path

import lightning as L

from benchmarks.language import SHAPES, fit, make_shards
from benchmarks.table import Page, parser
from benchmarks.timer import MONITORED, WINDOW, Alternation
from benchmarks.trainer import NoiseMNIST, ours
from engine.process import prepare_process

GROUPS = {"mlp": 40, "gpt": 8}  # groups of four windows, after one warm-up group


def groups(seconds: list[float]) -> list[tuple[float, float]]:
    """Return seconds per step without and with callbacks for each group but the first."""
    found = []
    for start in range(len(MONITORED), len(seconds) - len(MONITORED) + 1, len(MONITORED)):
        group = list(zip(seconds[start : start + len(MONITORED)], MONITORED, strict=True))
        without, monitored = (
            sum(second for second, there in group if there is which) / 2 / WINDOW
            for which in (False, True)
        )
        found.append((without, monitored))
    return found


def flags(number: int, mlflow: bool = False) -> list[str]:
    """Return the flags that add monitoring, or MLflow, for a number of groups."""
    overlay, timer = (
        ("logger/mlflow", "TrackerAlternation") if mlflow else ("trainer/monitor", "Alternation")
    )
    steps = (number + 1) * len(MONITORED) * WINDOW + 1
    return [
        *("--config", f"configs/{overlay}.yaml", "--trainer.log_every_n_steps", str(WINDOW)),
        *("--trainer.max_epochs", "-1", "--trainer.max_steps", str(steps)),
        *("--trainer.limit_train_batches", "1.0", "--trainer.limit_val_batches", "0"),
        *("--checkpoint.monitor", "null", "--test_after_fit", "false"),
        f"--trainer.callbacks+=benchmarks.timer.{timer}",
    ]


def main() -> None:
    """Measure and print a table; `--write` also writes it to a file."""
    command = parser("monitoring", __doc__)
    command.add_argument("--groups", type=int, help="groups of 200 steps (default: MLP 40, GPT 8)")
    command.add_argument("--mlflow", action="store_true", help="measure MLflow instead")
    options = command.parse_args()
    if options.groups is not None and options.groups < 1:
        command.error(f"--groups must be at least 1, got {options.groups}")
    prepare_process()
    numbers = GROUPS if options.groups is None else dict.fromkeys(GROUPS, options.groups)
    title = "Cost of logging to MLflow" if options.mlflow else "Cost of monitoring"
    page = Page("monitoring", title, f"one logging step in {WINDOW}.", L)
    page.table("net", "step without", "step with", "ratio (median; quartiles)", "groups")
    for name, number in numbers.items():
        if name == "mlp":
            ours("mlp", NoiseMNIST(128), *flags(number, options.mlflow))
        else:
            with tempfile.TemporaryDirectory() as folder:
                small = SHAPES["cpu"]["small"]
                fit(
                    small,
                    0.0,
                    "cpu",
                    make_shards(small, Path(folder)),
                    *flags(number, options.mlflow),
                )
        page.row(name, *cells(groups(Alternation.seconds)))
    page.write(options.write)


def cells(found: list[tuple[float, float]]) -> list[str]:
    """Return the cells of a row."""
    without, monitored = (1000 * statistics.median(column) for column in zip(*found, strict=True))
    ratios = sorted(b / a for a, b in found)
    low, middle, high = (
        statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    )
    return [
        f"{without:.3f} ms",
        f"{monitored:.3f} ms",
        f"{middle:.4f} x ({low:.4f} to {high:.4f})",
        f"{len(found)}",
    ]


if __name__ == "__main__":
    main()
