"""Run configs, hold each against the result it promises, and write docs/results.md.

    python reproduce.py configs/digits/cnn.yaml
    python reproduce.py configs/mnist/*.yaml --seeds 3
    python reproduce.py --seeds 3 configs/mnist/mlp.yaml -- --trainer.accelerator cpu

Each config is trained once a seed (0, 1, …) in a process of its own; a promise is held against the
mean over seeds. Flags after `--` go to every run. Exits with code 1 where a promise is broken.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from callbacks.promises import kept

HERE = Path(__file__).parent
RESULTS = HERE / "docs" / "results.md"
HEAD = """# Results

Written by `reproduce.py`: each row is a promise of a config, held against the mean over the seeds.
Time is that of one training, validation included, without start-up.

"""
COLUMNS = (
    "config | net | parameters | metric | promised | seen | seeds | time | machine | date | commit"
)


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Raises:
        SystemExit: With code 1 if a promise is broken or a run fails, 2 if nothing can be run.
    """
    parser = argparse.ArgumentParser(
        prog="reproduce.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("configs", nargs="+", type=Path, help="configs with an `expect:` key")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each config")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the table to write into")
    own, _, flags = _split(sys.argv[1:] if args is None else args)
    options = parser.parse_args(own)
    if options.seeds < 1:
        parser.error("--seeds must be 1 or more")
    for config in options.configs:
        if not config.is_file():
            parser.error(f"there is no config {config}")
        if not yaml.safe_load(config.read_text()).get("expect"):
            parser.error(f"{config} promises nothing: it has no `expect:`")

    broken = []
    for config in options.configs:
        runs = [train(config, seed, flags) for seed in range(options.seeds)]
        rows = judge(name_of(config), runs)
        write(options.results, rows)
        for row in rows:
            print(row["text"], flush=True)
            broken += [] if row["kept"] else [row["text"]]
    if broken:
        sys.exit("broken promises:\n" + "\n".join(broken))
    print(f"all promises kept; see {options.results}")


def train(config: Path, seed: int, flags: list[str]) -> dict[str, Any]:
    """Train a config once, as a user would, and read what it left in its run folder."""
    command = [sys.executable, "train.py", "fit", "--config", str(config.resolve())]
    command += ["--seed_everything", str(seed), *flags]
    print(f"{name_of(config)}, seed {seed} …", flush=True)
    done = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, text=True)
    found = re.search(r"^run folder: (.*)$", done.stdout, re.MULTILINE)
    if done.returncode or not found:
        sys.stderr.write(done.stdout)
        sys.exit(f"{name_of(config)}, seed {seed}: train.py ended with code {done.returncode}")
    results: dict[str, Any] = json.loads((HERE / found[1] / "results.json").read_text())
    return results


def judge(config: str, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per promise: the mean over the runs and whether it keeps the promise."""
    rows = []
    for metric, expectation in runs[0]["expect"].items():
        seen = [run["metrics"].get(metric, float("nan")) for run in runs]
        mean = statistics.fmean(seen)
        spread = f" ± {statistics.stdev(seen):.4f}" if len(seen) > 1 else ""
        good = kept(expectation["promise"], mean)
        first = runs[0]
        cells = [
            f"`{config}`",
            first["net"],
            f"{first['parameters']:,}",
            metric,
            expectation["promise"],
            f"{'' if good else '**broken** '}{mean:.4f}{spread}",
            str(len(runs)),
            f"{statistics.fmean(run['seconds'] for run in runs):.0f} s",
            first["machine"],
            first["date"],
            first["git_commit"][:10] + ("+changes" if "+" in first["git_commit"] else ""),
        ]
        text = f"{config}: {metric} {mean:.4f}{spread}, promised {expectation['promise']}: "
        rows.append(
            {
                "key": (f"`{config}`", metric),
                "line": "| " + " | ".join(cells) + " |",
                "kept": good,
                "text": text + ("kept" if good else "BROKEN"),
            }
        )
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Put rows into the table, in place of older ones of the same config and metric."""
    lines: dict[tuple[str, str], str] = {}
    below = ""  # what others have written there: it stays
    if path.exists():
        above, heading, rest = path.read_text().partition("\n## ")
        below = heading + rest
        for line in above.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if line.startswith("| `"):
                lines[cells[0], cells[3]] = line
    lines |= {row["key"]: row["line"] for row in rows}
    table = ["| " + COLUMNS + " |", "|" + " --- |" * (COLUMNS.count("|") + 1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    table += [lines[key] for key in sorted(lines)]
    path.write_text(HEAD + "\n".join(table) + "\n" + below)


def name_of(config: Path) -> str:
    """The config's path as the README writes it."""
    path = config.resolve()
    return str(path.relative_to(HERE) if path.is_relative_to(HERE) else path)


def _split(args: list[str]) -> tuple[list[str], str, list[str]]:
    if "--" not in args:
        return args, "", []
    at = args.index("--")
    return args[:at], "--", args[at + 1 :]


if __name__ == "__main__":
    main()
