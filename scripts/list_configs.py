"""List the configs by what their comments say: `python -m scripts.list_configs`.

The documentation shows this page; it is written when the site is built.
"""

import re
from pathlib import Path

import yaml

from scripts.pages import ROOT

CONFIGS = ROOT / "configs"
HEAD = """# Configs

Every config of `configs/`, as its comment describes it. `python train.py fit --config FILE` runs an
experiment; configs without a network (`trainer/`, `optimizer/`, `schedule/`, `size/`, `adapter/`,
`logger/`) are stacked on one by a second `--config`. Any value can be changed on the command line,
as in `--model.net.dropout 0.3`.
"""


def comment(config: Path) -> list[str]:
    """Return the paragraphs of a config's first comment; indented lines are commands."""
    lines = []
    for line in config.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].removeprefix(" "))
    paragraphs: list[str] = []
    for line in lines:
        code = line.startswith("  ")
        if paragraphs and code == paragraphs[-1].startswith("    "):
            paragraphs[-1] += f"\n{'    ' if code else ''}{line.strip()}"
        else:
            paragraphs.append(f"{'    ' if code else ''}{line.strip()}")
    return paragraphs


def entry(config: Path) -> str:
    """Return the section of one config: comment, expected results, classes."""
    name = config.relative_to(CONFIGS).with_suffix("").as_posix()
    text = config.read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    expected = (content.get("expect") or {}) if isinstance(content, dict) else {}
    classes = dict.fromkeys(
        re.findall(r"\b(?:modules|datamodules|callbacks)\.[\w.]*[A-Z]\w*", text)
    )
    parts = [f"### {name}", *comment(config)]
    if expected:
        parts.append("Expected: " + ", ".join(f"{key} {value}" for key, value in expected.items()))
    if classes:
        parts.append("Classes: " + ", ".join(f"`{one}`" for one in classes))
    return "\n\n".join(parts)


def page() -> str:
    """Return the page of all configs."""
    parts = [HEAD]
    for folder in sorted(path for path in CONFIGS.iterdir() if path.is_dir()):
        parts.append(f"## {folder.name}/")
        parts += [entry(config) for config in sorted(folder.glob("*.yaml"))]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(page())
