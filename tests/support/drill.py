"""Kill a training run repeatedly, resume it, and compare: `python -m tests.support.drill`.

Each `kill -9` comes at a random moment after training started. A checkpoint is written every second
step, so that many kills interrupt a write. In the end the run must equal the uninterrupted one bit
for bit: weights, optimizer, metrics.csv.
"""

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent.parent
TITLE = "## Reliability drill"
RUN = (
    *("fit", "--config", ROOT / "tests/configs/digits/tiny.yaml", "--test_after_fit", "false"),
    *("--data.batch_size", 64, "--model.net.conv_dropout", 0.2, "--trainer.log_every_n_steps", 1),
    *("--checkpoint.every_n_steps", 2, "--trainer.enable_progress_bar", "false"),
    *("--trainer.accelerator", "cpu", "--trainer.num_sanity_val_steps", 0),
)


def start(folder: Path, experiment: str, epochs: int, *more: object) -> subprocess.Popen:
    """Start training in a process of its own."""
    arguments = (*RUN, "--trainer.max_epochs", epochs, "--experiment", experiment, *more)
    command = [sys.executable, "-u", str(ROOT / "train.py"), *map(str, arguments)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> None:
    output, _ = process.communicate(timeout=600)
    if process.returncode:
        raise SystemExit(f"the run failed with {process.returncode}:\n{output}")


def newest(folder: Path) -> Path:
    """Return the run that `--resume auto` continues, or the new one if none had a checkpoint."""
    return max((folder / "runs/killed").iterdir(), default=folder / "runs/killed/001")


def step_of(path: Path) -> int:
    """Return the step of a checkpoint; 0 if there is none."""
    return torch.load(path, weights_only=True)["global_step"] if path.exists() else 0


def drill(folder: Path, kills: int, seed: int, epochs: int, verbose: bool = True) -> dict[str, int]:
    """Kill and resume a run; return the counts for the report.

    Raises:
        AssertionError: If the two runs differ, or a checkpoint was lost.
    """
    draw = random.Random(seed)
    finish(start(folder, "uninterrupted", epochs))
    (folder / "runs/killed").mkdir()
    counts = {"kills": 0, "while a checkpoint was written": 0, "steps": 0}
    for _ in range(kills):
        before = step_of(newest(folder) / "checkpoints/last.ckpt")
        process = start(folder, "killed", epochs, "--resume", "auto")
        assert process.stdout is not None
        for line in process.stdout:
            if " parameters" in line:  # printed just before the first step
                break
        time.sleep(draw.uniform(0, 1))
        if process.poll() is not None:
            raise SystemExit(
                f"the run ended before it could be killed: {epochs} epochs are too few"
            )
        process.kill()
        process.wait()
        last = newest(folder) / "checkpoints/last.ckpt"
        counts["kills"] += 1
        counts["while a checkpoint was written"] += any(last.parent.glob("*.part"))
        assert step_of(last) >= before, "a checkpoint was lost"
        if verbose:
            print(f"kill {counts['kills']}: last.ckpt went from step {before} to {step_of(last)}")
    finish(start(folder, "killed", epochs, "--resume", "auto"))
    run, other = newest(folder), folder / "runs/uninterrupted/001"
    for abandoned in set(run.parent.iterdir()) - {run}:  # killed before its first checkpoint
        assert not list(abandoned.glob("checkpoints/*.ckpt")), (
            "a run with a checkpoint was not resumed"
        )
    a, b = (torch.load(f / "checkpoints/last.ckpt", weights_only=True) for f in (other, run))
    for name, weight in a["state_dict"].items():
        assert torch.equal(weight, b["state_dict"][name]), name
    for number, state in a["optimizer_states"][0]["state"].items():
        for key, value in state.items():
            assert torch.equal(value, b["optimizer_states"][0]["state"][number][key]), key
    assert (other / "metrics.csv").read_text() == (run / "metrics.csv").read_text()
    return counts | {"steps": a["global_step"]}


def main() -> None:
    """Run the drill and print its report; `--write` also puts it into a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=150, help="of 22 steps each")
    parser.add_argument("--write", type=Path, help="a Markdown file for the report")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = drill(Path(folder), options.kills, options.seed, options.epochs)
    report = (
        f"{TITLE}\n\n"
        f"`python -m tests.support.drill --kills {options.kills} --seed {options.seed}`, "
        f"{time.strftime('%Y-%m-%d')}, torch {torch.__version__}: a run of {counts['steps']} "
        f"steps was killed {counts['kills']} times by `kill -9`, "
        f"{counts['while a checkpoint was written']} of them while a checkpoint was written, "
        "and resumed each time. Final weights, optimizer and metrics.csv equal those of the "
        "uninterrupted run bit for bit.\n"
    )
    print(report)
    if options.write:
        write(options.write, report)


def write(path: Path, report: str) -> None:
    """Replace the report in a file, or append it."""
    text = path.read_text() if path.exists() else ""
    older = re.search(rf"(?ms)^{TITLE}$.*?(?=^## |\Z)", text)
    if older:
        path.write_text(text[: older.start()] + report + text[older.end() :])
    else:
        path.write_text(f"{text}\n{report}".lstrip("\n"))


if __name__ == "__main__":
    main()
