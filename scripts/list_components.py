"""List what a config can name: `python -m scripts.list_components`.

Each line is the class path for a config and the first sentence of the docstring. docs/components.md
is this list, written by --write.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cli.help import list_classes

PACKAGES = {
    "modules": "Tasks",
    "modules.nets": "Networks",
    "datamodules": "Data modules and augmentation",
    "callbacks": "Callbacks",
    "modules.optim": "Optimizers and schedules",
    "modules.adapters": "Adapters",
    "engine.distributed": "Strategies",
}
HEAD = """# Components

What a config can name, by class path. Written by `python -m scripts.list_components --write
docs/components.md`. `python train.py fit --model.net.help modules.nets.CNN` lists the arguments of
a class.
"""


def page() -> str:
    """Return docs/components.md."""
    lines = [HEAD]
    for package, title in PACKAGES.items():
        lines += [f"## {title}", "", "| class | purpose |", "| --- | --- |"]
        lines += [f"| `{package}.{name}` | {text} |" for name, text in list_classes(package)]
        lines.append("")
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> None:
    """Print the page, or write it to a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="FILE", help="Markdown file to write")
    options = parser.parse_args(args)
    if options.write:
        options.write.write_text(page(), encoding="utf-8")
    else:
        print(page())


if __name__ == "__main__":
    main()
