"""Write pages of the course as notebooks: `python -m scripts.make_notebooks --output notebooks`.

Included functions and classes become code cells with the imports of their file, commands become
cells that run them. The notebooks belong into a folder below the project's root.
"""

import argparse
import ast
import os
import re
from collections.abc import Sequence
from pathlib import Path

import jupytext

from scripts.pages import DAYS, ROOT, Block, blocks, commands, defined, find_source

PAGES = (1, 2, 5)  # days
SETUP = """```python
import os
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
root = next(path for path in folders if (path / "train.py").exists())
os.chdir(root)
sys.path.insert(0, str(root))
python = sys.executable
```

"""
SHORT = (
    " --trainer.max_steps 2 --trainer.limit_train_batches 2 --trainer.limit_val_batches 1"
    " --trainer.limit_test_batches 1"
)


def notebook(page: Path, folder: Path, short: bool = False) -> str:
    """Return a page as the JSON of a notebook.

    Args:
        page: Markdown file of a day.
        folder: Folder of the notebook, from which links start.
        short: Shorten the runs to two steps or one epoch, for tests.
    """
    text = page.read_text(encoding="utf-8")
    for block in reversed(list(blocks(text))):
        if block.language == "console":
            cell = command_cell(block, short)
        elif "source" in block.options:
            cell = source_cell(block)
        else:
            continue
        text = f"{text[: block.start]}{cell}{text[block.end :]}"
    up = os.path.relpath(DAYS, folder)
    text = re.sub(r"\]\((?!https?:|#)([^)]+)\)", rf"]({up}/\1)", text)
    title, _, rest = text.partition("\n\n")
    cells = jupytext.reads(f"{title}\n\n{SETUP}{rest}", fmt="md")
    cells.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    written: str = jupytext.writes(cells, fmt="ipynb")
    return written


def command_cell(block: Block, short: bool) -> str:
    """Return the commands of a console block as a code cell."""
    lines = []
    for command, _ in commands(block):
        if short:
            command = re.sub(r"--epochs \d+", "--epochs 1", command)
            command += SHORT if "train.py fit" in command else ""
            command += " --resamples 10" if "scripts.evaluate " in command else ""
        lines.append(re.sub(r"^python ", "!{python} ", command))
    return "\n".join(["```python", *lines, "```"])


def source_cell(block: Block) -> str:
    """Return included source as a code cell; methods, which do not run alone, as text."""
    reference = block.options["source"]
    source = find_source(reference, block.options.get("docstring") != "no")
    file, _, names = reference.partition(":")
    if "." in names:
        return f"*{file}*\n\n```text\n{source}```"
    return f"```python\n{imports(file, source, names.split(','))}\n\n\n{source}```"


def imports(file: str, source: str, names: Sequence[str]) -> str:
    """Return the imports that functions and classes of a file need."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    found = [
        ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    used = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    others = {name for node in tree.body for name in defined(node)} & used - set(names)
    if others:
        found.append(f"from {file[:-3].replace('/', '.')} import {', '.join(sorted(others))}")
    return "\n".join(found)


def main(args: Sequence[str] | None = None) -> None:
    """Write the notebooks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "notebooks", metavar="FOLDER")
    parser.add_argument("--days", type=int, nargs="+", default=PAGES, metavar="DAY")
    parser.add_argument("--short", action="store_true", help="shorten the runs, for a test")
    options = parser.parse_args(args)
    options.output.mkdir(parents=True, exist_ok=True)
    for day in options.days:
        file = options.output / f"day-{day:02}.ipynb"
        page = DAYS / f"day-{day:02}.md"
        file.write_text(notebook(page, options.output.resolve(), options.short), encoding="utf-8")
        print(file)


if __name__ == "__main__":
    main()
