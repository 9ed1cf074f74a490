"""Run configs, hold each against the result it promises, and write docs/results.md.

    python reproduce.py configs/digits/cnn.yaml
    python reproduce.py configs/mnist/*.yaml --seeds 3
    python reproduce.py --seeds 3 configs/mnist/mlp.yaml -- --trainer.accelerator cpu
    python reproduce.py configs/mnist/mlp.yaml --runs runs/mnist-mlp/001 runs/mnist-mlp/002

Each config is trained once a seed (0, 1, …) in a process of its own; a promise is held against the
mean over seeds. Flags after `--` go to every run. `--runs` trains nothing and judges runs of one
config that are done, of different seeds: trained side by side, on other machines, or resumed. Exits
with code 1 where a promise is broken.
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

from engine.run.expectations import is_met

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
    parser.add_argument("--runs", nargs="+", type=Path, help="run folders to judge instead")
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

    if options.runs:
        if len(options.configs) > 1 or flags:
            parser.error("--runs judges runs of one config, and takes no flags for training")
        if complaint := complain(options.configs[0], options.runs):
            parser.error(complaint)

    broken = []
    for config in options.configs:
        if options.runs:
            runs = [read(folder) for folder in options.runs]
        else:
            runs = [train(config, seed, flags) for seed in range(options.seeds)]
        rows = judge(config, runs)
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
    return read(HERE / found[1])


def read(folder: Path) -> dict[str, Any]:
    """What a run has left of its results."""
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results


def complain(config: Path, folders: list[Path]) -> str | None:
    """Why runs can't be judged as those of the config, if they can't."""
    told = yaml.safe_load(config.read_text())
    del told["expect"]  # a promise may be made later than the run
    seeds: dict[int, Path] = {}
    for folder in folders:
        if not (folder / "results.json").is_file():
            return f"{folder} has no results.json: it is no run folder, or its run is not over"
        seen = read(folder)["config"]
        if key := first_difference(told, seen):
            return f"{folder} is no run of {config}: they differ in {key}"
        if (seed := seen["seed_everything"]) in seeds:
            return f"{folder} and {seeds[seed]} have the same seed, {seed}: that is one result"
        seeds[seed] = folder
    return None


def first_difference(told: Any, seen: Any, key: str = "") -> str | None:
    """The first key that has another value in a run than its config says; None if all agree."""
    if isinstance(told, str) and isinstance(seen, dict):  # a class alone: all its defaults
        seen = seen.get("class_path")
    if isinstance(told, dict) and isinstance(seen, dict):
        pairs = [(f"{key}.{name}", value, seen.get(name)) for name, value in told.items()]
    elif isinstance(told, list) and isinstance(seen, list) and len(told) == len(seen):
        pairs = [(f"{key}.{i}", *pair) for i, pair in enumerate(zip(told, seen, strict=True))]
    else:
        return None if told == seen else key.lstrip(".")
    found = (first_difference(a, b, name) for name, a, b in pairs)
    return next((name for name in found if name), None)


def judge(config: Path, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per promise of the config: the mean over the runs and whether it keeps it."""
    rows = []
    name = name_of(config)
    for metric, promise in yaml.safe_load(config.read_text())["expect"].items():
        seen = [run["metrics"].get(metric, float("nan")) for run in runs]
        mean = statistics.fmean(seen)
        spread = f" ± {statistics.stdev(seen):.4f}" if len(seen) > 1 else ""
        good = is_met(promise, mean)
        first = runs[0]
        cells = [
            f"`{name}`",
            first["net"],
            f"{first['parameters']:,}",
            metric,
            promise,
            f"{'' if good else '**broken** '}{mean:.4f}{spread}",
            str(len(runs)),
            f"{statistics.fmean(run['seconds'] for run in runs):.0f} s",
            first["machine"],
            first["date"],
            first["git_commit"][:10] + ("+changes" if "+" in first["git_commit"] else ""),
        ]
        text = f"{name}: {metric} {mean:.4f}{spread}, promised {promise}: "
        rows.append(
            {
                "key": (f"`{name}`", metric),
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
