"""Run the commands of the course's pages again: `python -m scripts.refresh_docs day 13`.

The commands of a page run one after another in a temporary folder that has the project's files and
an empty runs/, and their output replaces that in the page. A console block may have options:

    ```console tail=12 figures="curves.png:day-13-curves.png"

`head` and `tail` keep that many lines, `figures` copies files of the newest run folder to
docs/days/figures. docs/days/outputs.json records what each block ran with; `--check` reports the
blocks whose configs or classes have changed since.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from scripts.pages import DAYS, ROOT, Block, blocks, commands

RECORD = DAYS / "outputs.json"
CLASS = re.compile(r"\b(?:modules|datamodules)(?:\.\w+)*\.[A-Z]\w*")
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
MAX_BYTES, MAX_WIDTH = 100_000, 1000  # of a figure of the site; larger ones are made smaller
TIMEOUT = 1800  # seconds for one command


def page_of(words: Sequence[str]) -> list[Path]:
    """Return the pages that the command line names: `day 13`, `project 2`, `all`."""
    if list(words) == ["all"]:
        return sorted(DAYS.glob("*.md"))
    kind, number = words
    return [DAYS / f"{kind}-{int(number):02}.md" if kind == "day" else DAYS / f"{kind}-{number}.md"]


def make_workspace(folder: Path) -> None:
    """Fill a folder with links to the project's files; runs are not among them."""
    for path in ROOT.iterdir():
        if path.name not in ("runs", "site", ".git", ".pytest_cache"):
            (folder / path.name).symlink_to(path)


def run(command: str, folder: Path) -> str:
    """Run a command in the workspace and return its output without what depends on the machine.

    Raises:
        RuntimeError: If the command fails; a command that is meant to fail ends with `|| true`.
    """
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"{command} failed with exit code {result.returncode}:\n{result.stdout}")
    return clean(result.stdout, folder)


def clean(output: str, folder: Path) -> str:
    """Remove colors, overwritten progress bars, and paths of this machine."""
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in output.split("\n")]
    text = ANSI.sub("", "\n".join(lines))
    data = os.environ.get("DATA_DIR")
    for path, short in ((folder, ""), (ROOT, ""), (data and Path(data), "data/")):
        if path:
            text = text.replace(f"{path}/", short).replace(str(path), short.rstrip("/") or ".")
    return text.strip("\n") + "\n" if text.strip() else ""


def shortened(output: str, options: dict[str, str]) -> str:
    """Keep the first `head` and the last `tail` lines, with `...` for those left out."""
    head, tail = (int(options.get(name, 0)) for name in ("head", "tail"))
    lines = output.splitlines()
    if not (head or tail) or len(lines) <= head + tail + 1:
        return output
    kept = [*lines[:head], "...", *(lines[-tail:] if tail else [])]
    return "\n".join(kept) + "\n"


def copy_figures(option: str, folder: Path) -> None:
    """Copy `FILE:NAME,FILE:NAME` from the newest run folder, or the workspace, to the figures."""
    newest = max(
        (folder / "runs").glob("*/*/"), key=lambda path: path.stat().st_mtime, default=folder
    )
    for pair in option.split(","):
        source, _, name = pair.partition(":")
        choices = [newest / "figures" / source, newest / source, folder / source]
        found = next((path for path in choices if path.is_file()), None)
        if found is None:
            raise FileNotFoundError(f"figure {source} is neither in {newest} nor in {folder}")
        copy_figure(found, DAYS / "figures" / name)


def copy_figure(source: Path, target: Path) -> None:
    """Copy a figure; a large PNG gets fewer pixels and a palette of 64 colors."""
    if source.suffix == ".png" and source.stat().st_size > MAX_BYTES:
        with Image.open(source) as image:
            smaller = image.convert("RGB").resize(
                (MAX_WIDTH, MAX_WIDTH * image.height // image.width)
            )
            smaller.quantize(64).save(target, optimize=True)
    else:
        shutil.copyfile(source, target)


def refresh(page: Path) -> None:
    """Run all commands of a page and write their outputs into it."""
    outputs = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        make_workspace(folder)
        for block in blocks(page.read_text(encoding="utf-8"), "console"):
            for command, _ in commands(block):
                print(f"{page.stem}: {command}", file=sys.stderr)
                outputs.append((command, run(command, folder)))
            if "figures" in block.options:
                copy_figures(block.options["figures"], folder)
    # Read again: somebody may have edited the page meanwhile.
    page.write_text(replaced(page.read_text(encoding="utf-8"), outputs), encoding="utf-8")
    record(page)


def replaced(text: str, outputs: Sequence[tuple[str, str]]) -> str:
    """Return the text of a page with the outputs of its commands, which are in the page's order."""
    remaining = list(outputs)
    pieces, end = [], 0
    for block in blocks(text, "console"):
        new = ""
        for command, old in commands(block):
            found = next((pair for pair in remaining if pair[0] == command), None)
            if found is None:
                new += f"$ {command}\n{old}"
            else:
                remaining.remove(found)
                new += f"$ {command}\n{shortened(found[1], block.options)}"
        fence = text[block.start : text.index("\n", block.start)]
        pieces += [text[end : block.start], f"{fence}\n{new}```"]
        end = block.end
    return "".join(pieces) + text[end:]


def record(page: Path) -> None:
    """Write down what the outputs of a page were made with."""
    known = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    known[page.stem] = digests(page)
    RECORD.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", encoding="utf-8")


def digests(page: Path) -> dict[str, str]:
    """Return for each command of a page the digest of the configs and classes that it runs."""
    found = blocks(page.read_text(encoding="utf-8"), "console")
    return {command: digest(command, block) for block in found for command, _ in commands(block)}


def digest(command: str, block: Block) -> str:
    """Return a digest of a command, its figures, its configs, scripts, tasks and networks."""
    sha = hashlib.sha256(f"{command} {block.options}".encode())
    for path in inputs_of(command):
        if path.suffix == ".py":
            sha.update(code_of(path).encode())
        else:
            lines = path.read_text(encoding="utf-8").splitlines()
            sha.update("\n".join(line for line in lines if not line.startswith("#")).encode())
    return sha.hexdigest()[:16]


def inputs_of(command: str) -> list[Path]:
    """Return the configs and scripts of a command, and the files of the classes that they name."""
    files = [ROOT / word for word in re.findall(r"configs/[\w/.-]+\.yaml", command)]
    modules = re.findall(r"-m ([a-z]\w*(?:\.\w+)+)", command)
    files += [ROOT / f"{name.replace('.', '/')}.py" for name in modules]
    files = [path for path in files if path.is_file()]
    texts = [command, *(path.read_text(encoding="utf-8") for path in files)]
    classes = {one for text in texts for one in CLASS.findall(text)}
    return [*files, *sorted({path for one in classes if (path := file_of(one))})]


def file_of(name: str) -> Path | None:
    """Return the file that defines a class which a package exports, such as modules.nets.MLP."""
    package, _, label = name.rpartition(".")
    init = ROOT / package.replace(".", "/") / "__init__.py"
    if not init.is_file():
        direct = init.parent.with_suffix(".py")
        return direct if direct.is_file() else None
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and label in {alias.name for alias in node.names}:
            return ROOT / f"{(node.module or '').replace('.', '/')}.py"
    return None


def code_of(path: Path) -> str:
    """Return the code of a file without comments and docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree)


def outdated(page: Path) -> dict[str, str]:
    """Return the commands of a page whose output is outdated or was not recorded."""
    known = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    recorded = known.get(page.stem, {})
    return {
        command: "outdated" if command in recorded else "not recorded"
        for command, sha in digests(page).items()
        if recorded.get(command) != sha
    }


def main(args: Sequence[str] | None = None) -> int:
    """Refresh pages, or report what is outdated; return the exit code."""
    parser = argparse.ArgumentParser(
        "python -m scripts.refresh_docs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("page", nargs="+", help="`day N`, `project N` or `all`")
    parser.add_argument("--check", action="store_true", help="only report outdated outputs")
    options = parser.parse_args(args)
    if options.page != ["all"] and (
        len(options.page) != 2 or options.page[0] not in ("day", "project")
    ):
        parser.error(f"expected `day N`, `project N` or `all`, got {' '.join(options.page)!r}")
    pages = page_of(options.page)
    if missing := [page for page in pages if not page.is_file()]:
        parser.error(f"{missing[0]} does not exist")
    stale = False
    for page in pages:
        if not options.check:
            refresh(page)
        for command, reason in outdated(page).items():
            stale = True
            print(f"{page.stem}: {reason}: {command}")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
