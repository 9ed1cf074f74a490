"""Train configs, compare their results with `expect:`, and write docs/results.md.

    python reproduce.py configs/digits/cnn.yaml
    python reproduce.py configs/mnist/*.yaml --seeds 3
    python reproduce.py --seeds 3 configs/mnist/mlp.yaml -- --trainer.accelerator cpu
    python reproduce.py configs/mnist/mlp.yaml --runs runs/mnist-mlp/001 runs/mnist-mlp/002

Each config is trained once per seed (0, 1, ...), each time in a new process; the mean over seeds
is compared with the config's expectation. Flags after `--` are passed to every run. `--runs` trains
nothing and evaluates finished runs of one config with different seeds. The exit code is 1 if an
expectation is not met.
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

from engine.process import escape_unencodable_output
from engine.run.expectations import is_met

ROOT = Path(__file__).parent
RESULTS = ROOT / "docs" / "results.md"
HEAD = """# Results

Written by `reproduce.py`: each row compares an expectation of a config with the mean over seeds.
Time is that of one training, including validation, without start-up.

"""
COLUMNS = (
    "config | net | parameters | metric | expected | measured | seeds | time | machine | date "
    "| commit"
)


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Raises:
        SystemExit: With code 1 if an expectation is not met or a run fails, 2 after a user error.
    """
    escape_unencodable_output()
    given = sys.argv[1:] if args is None else args
    separator = given.index("--") if "--" in given else len(given)
    flags = given[separator + 1 :]
    parser = argparse.ArgumentParser(
        prog="reproduce.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("configs", nargs="+", type=Path, help="configs with an `expect:` key")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each config (default: 1)")
    parser.add_argument(
        "--runs", nargs="+", type=Path, help="finished run folders to evaluate (default: train)"
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        help="the table to update (default: docs/results.md)",
    )
    options = parser.parse_args(given[:separator])
    if options.seeds < 1:
        parser.error(f"--seeds must be at least 1, got {options.seeds}")
    for config in options.configs:
        if not config.is_file():
            parser.error(f"there is no config {config}")
        if not read_config(config).get("expect"):
            parser.error(f"{config} has no `expect:`, so there is nothing to compare")
    if options.runs:
        if len(options.configs) > 1 or flags:
            parser.error("--runs requires exactly one config and no flags after --")
        if error := find_mismatch(options.configs[0], options.runs):
            parser.error(error)

    not_met = []
    for config in options.configs:
        if options.runs:
            results = [read_results(folder) for folder in options.runs]
        else:
            results = [train(config, seed, flags) for seed in range(options.seeds)]
        rows = compare(config, results)
        update_table(options.results, rows)
        for row in rows:
            print(row["text"], flush=True)
            if not row["met"]:
                not_met.append(row["text"])
    if not_met:
        sys.exit("expectations not met:\n" + "\n".join(not_met))
    print(f"all expectations met; see {options.results}")


def train(config: Path, seed: int, flags: list[str]) -> dict[str, Any]:
    """Run `train.py fit` in a process of its own and return its results.

    A config without a model is one of `scripts.evaluate_prompts` if it has prompts, else of
    `rag.py evaluate`; these have no seed.
    """
    content = read_config(config)
    program = ["rag.py", "evaluate"]
    if "prompts" in content:
        program = ["-m", "scripts.evaluate_prompts"]
    elif "model" in content:
        program = ["train.py", "fit"]
    command = [sys.executable, *program, "--config", str(config.resolve())]
    if program[0] == "train.py":
        command += ["--seed_everything", str(seed)]
    command += flags
    print(f"{display_name(config)}, seed {seed} ...", flush=True)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, errors="replace")
    folder = re.search(r"^run folder: (.*)$", done.stdout, re.MULTILINE)
    if done.returncode or not folder:
        sys.stderr.write(done.stdout)
        message = f"{' '.join(program)} exited with {done.returncode}"
        sys.exit(f"{display_name(config)}, seed {seed}: {message}")
    return read_results(ROOT / folder[1])


def read_config(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def read_results(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "results.json").read_text(encoding="utf-8")))


def find_mismatch(config: Path, folders: list[Path]) -> str | None:
    """Return why the folders are not runs of the config with different seeds, or None."""
    expected = read_config(config)
    del expected["expect"]  # may have been added after the run
    seeds: dict[int, Path] = {}
    for folder in folders:
        if not (folder / "results.json").is_file():
            return f"{folder} has no results.json: not a run folder, or the run is not finished"
        actual = read_results(folder)["config"]
        if key := first_difference(expected, actual):
            return f"{folder} is not a run of {config}: they differ in {key}"
        if (seed := actual["seed_everything"]) in seeds:
            return f"{folder} and {seeds[seed]} have the same seed, {seed}"
        seeds[seed] = folder
    return None


def first_difference(expected: Any, actual: Any, key: str = "") -> str | None:
    """Return the first key whose value in a run differs from its config, or None."""
    if isinstance(expected, str) and isinstance(actual, dict):  # a class path alone: all defaults
        actual = actual.get("class_path")
    if isinstance(expected, dict) and isinstance(actual, dict):
        pairs = [(f"{key}.{name}", value, actual.get(name)) for name, value in expected.items()]
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        values = zip(expected, actual, strict=True)
        pairs = [(f"{key}.{index}", *pair) for index, pair in enumerate(values)]
    else:
        return None if expected == actual else key.lstrip(".")
    differences = (first_difference(a, b, name) for name, a, b in pairs)
    return next((name for name in differences if name), None)


def compare(config: Path, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a table row for each expectation of a config."""
    rows = []
    name, first = f"`{display_name(config)}`", results[0]
    for metric, expected in read_config(config)["expect"].items():
        values = [result["metrics"].get(metric, float("nan")) for result in results]
        mean = statistics.fmean(values)
        measured = f"{mean:.4f}"
        if len(values) > 1:
            measured += f" ± {statistics.stdev(values):.4f}"
        met = is_met(expected, mean)
        cells = [
            name,
            first["net"],
            f"{first['parameters']:,}",
            metric,
            expected,
            measured if met else f"**not met** {measured}",
            str(len(results)),
            f"{statistics.fmean(result['seconds'] for result in results):.0f} s",
            first["machine"],
            first["date"],
            first["git_commit"][:10] + ("+changes" if "+" in first["git_commit"] else ""),
        ]
        rows.append(
            {
                "key": (name, metric),
                "line": "| " + " | ".join(cells) + " |",
                "met": met,
                "text": f"{display_name(config)}: {metric} {measured}, expected {expected}: "
                + ("met" if met else "not met"),
            }
        )
    return rows


def update_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows, replacing those of the same config and metric; sections below the table stay."""
    lines: dict[tuple[str, str], str] = {}
    below = ""
    if path.exists():
        above, heading, rest = path.read_text(encoding="utf-8").partition("\n## ")
        below = heading + rest
        for line in above.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if line.startswith("| `"):
                lines[cells[0], cells[3]] = line
    lines |= {row["key"]: row["line"] for row in rows}
    table = ["| " + COLUMNS + " |", "|" + " --- |" * (COLUMNS.count("|") + 1)]
    table += [lines[key] for key in sorted(lines)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD + "\n".join(table) + "\n" + below, encoding="utf-8")


def display_name(config: Path) -> str:
    """Return the config's path relative to the repository, where it lies in it."""
    path = config.resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


if __name__ == "__main__":
    main()
