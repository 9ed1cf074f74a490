"""Pages of the course: headings, included source, commands, figures and exercises."""

import argparse
import importlib
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import train
from scripts.pages import DAYS, ROOT, blocks, commands, fill, find_source
from tests.support import REAL_DIR
from tests.support.configs import skipped_without_data

PAGES = sorted(DAYS.glob("day-*.md"))
ALL = [*PAGES, *sorted(DAYS.glob("project-*.md"))]
HEADINGS = [
    *("The question", "What yesterday could not do", "The mathematics", "The code", "Run it"),
    *("Look", "Vary", "Profile", "Exercises", "Reading"),
]
SHORT = (
    *("--trainer.max_steps", "2", "--trainer.limit_val_batches", "1"),
    *("--trainer.limit_test_batches", "1", "--trainer.val_check_interval", "1"),
    *("--trainer.limit_train_batches", "2", "--trainer.enable_progress_bar", "false"),
)
each_page = pytest.mark.parametrize("page", ALL, ids=lambda path: path.stem)
each_day = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)


class Parsed(Exception):
    """Raised instead of running a command whose arguments were accepted."""


def section(page: str, heading: str) -> str:
    """Return the text of a section, without its heading."""
    return re.split(r"^## ", page.partition(f"\n## {heading}\n")[2], flags=re.MULTILINE)[0]


def varied(page: str) -> list[str]:
    """Return the commands of the table of experiments."""
    rows = [line for line in section(page, "Vary").splitlines() if line.startswith("| ")]
    return [found[1] for row in rows if (found := re.search(r"`(python [^`]*)`", row))]


def shown_commands(page: str) -> list[list[str]]:
    """Return the words of every Python command in the console blocks and the experiments."""
    lines = [command for block in blocks(page, "console") for command, _ in commands(block)]
    lines += varied(page)
    words = [
        shlex.split(re.split(r" (?:\|\|?|&&|>) ", line)[0].replace("\\\n", "")) for line in lines
    ]
    return [one for one in words if one and one[0] == "python"]


@each_day
def test_headings_are_in_order(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS
    assert re.match(rf"# Day {int(page.stem[-2:])}: .+\n\n\*Time: reading .*; runs .*\*\n", text)
    assert not re.search(r"^[A-Z]{3,}$", text, re.MULTILINE)  # placeholder of a block


@each_page
def test_included_source_exists(page: Path) -> None:
    assert "source=" not in fill(page.read_text(encoding="utf-8"))


@each_page
def test_written_python_code_runs(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        if "source" not in block.options and block.options.get("run") != "no":
            exec(compile(block.text, page.name, "exec"), {"__name__": page.stem})


@each_page
def test_commands_have_output_and_name_existing_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in blocks(text, "console"):
        assert commands(block)[-1].output.strip()
    for words in shown_commands(text):
        if words[1] == "-c":
            compile(words[2], page.name, "exec")
            continue
        module = ROOT / f"{words[2].replace('.', '/')}.py" if words[1] == "-m" else ROOT / words[1]
        assert module.is_file() or (module.with_suffix("") / "__main__.py").is_file()
        assert not [
            one for one in words if one.startswith("configs/") and not (ROOT / one).exists()
        ]


@each_day
def test_three_experiments_or_more(page: Path) -> None:
    assert len(varied(page.read_text(encoding="utf-8"))) >= 3


@each_page
def test_figures_exist_and_are_small(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\]\((figures/[^)]+)\)", text):
        assert (DAYS / name).stat().st_size < 100_000
    made = [block.options.get("figures", "") for block in blocks(text, "console")]
    names = [pair.partition(":")[2] for option in made for pair in option.split(",") if pair]
    assert all(f"figures/{name}" in text for name in names)


@each_day
def test_every_exercise_is_named(page: Path) -> None:
    exercises = (ROOT / f"exercises/day{page.stem[-2:]}.py").read_text(encoding="utf-8")
    text = section(page.read_text(encoding="utf-8"), "Exercises")
    tasks = re.findall(r"^(?:def|class) ([A-Za-z]\w*)", exercises, re.MULTILINE)
    assert tasks
    assert not [name for name in tasks if name not in text]
    assert f"python -m exercises.check {int(page.stem[-2:])}" in text


@contextmanager
def parsing_only() -> Iterator[None]:
    """Let argparse raise Parsed where a command's arguments have been accepted."""
    parse, parse_known = (
        getattr(argparse.ArgumentParser, name) for name in ("parse_args", "parse_known_args")
    )
    outer: list[str] = []  # calls within which another parser is called, as that of a subcommand

    def limited(name: str, original: Callable) -> Callable:
        def parse_only(self: argparse.ArgumentParser, *args, **kwargs):
            outer.append(name)
            try:
                result = original(self, *args, **kwargs)
            finally:
                outer.pop()
            if outer:
                return result
            raise Parsed

        return parse_only

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", limited("all", parse))
        patch.setattr(argparse.ArgumentParser, "parse_known_args", limited("known", parse_known))
        yield


@pytest.mark.slow
@each_page
def test_commands_are_accepted(page: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (Path.cwd() / "configs").symlink_to(ROOT / "configs")
    for words in {tuple(words[1:]) for words in shown_commands(page.read_text(encoding="utf-8"))}:
        if words[0] == "-c":  # compiled in another test; it may run a training
            continue
        if words[0] == "train.py":
            with pytest.raises(SystemExit) as stop:
                train.main([*words[1:], "--print_config"])
            assert stop.value.code == 0, f"{shlex.join(words)}: {capsys.readouterr().err}"
            continue
        name, rest = (words[1], words[2:]) if words[0] == "-m" else (words[0][:-3], words[1:])
        command = importlib.import_module(name)
        monkeypatch.setattr("sys.argv", [name, *rest])
        with parsing_only(), pytest.raises((Parsed, SystemExit)) as stop:
            command.main()
        # A command without arguments has no parser, and runs.
        assert stop.type is Parsed or stop.value.code == 0, capsys.readouterr().err


@pytest.mark.slow
@each_page
def test_first_run_of_a_page_works(
    page: Path, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    fits = [
        words
        for words in shown_commands(page.read_text("utf-8"))
        if words[1:3] == ["train.py", "fit"]
    ]
    if not fits:
        pytest.skip("the page has no run of train.py")
    (Path.cwd() / "configs").symlink_to(ROOT / "configs")
    monkeypatch.setenv("DATA_DIR", str(REAL_DIR))
    with skipped_without_data(capsys):
        folder = run(*fits[0][2:], *SHORT)
    assert (folder / "results.json").is_file()


def test_source_is_found_by_qualified_name() -> None:
    method = find_source("modules/nets/mlp.py:MLP.forward")
    assert method.startswith("def forward(self, inputs: Tensor) -> Tensor:\n    logits")
    network = find_source("modules/nets/mlp.py:MLP", docstring=False)
    assert "Flatten, then" not in network
    assert "The output layer" not in network
    assert "    @property\n    def head" in network
    assert find_source("scripts/pages.py:FENCE").startswith("FENCE = re.compile(")


@pytest.mark.parametrize(
    "reference", ["modules/nets/mlp.py", "missing.py:MLP", "modules/nets/mlp.py:MLP.missing"]
)
def test_missing_source_is_an_error(reference: str) -> None:
    with pytest.raises(ValueError, match="source="):
        find_source(reference)
