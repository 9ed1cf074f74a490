"""Draw the packages by layer: `python -m scripts.draw_architecture`.

The layers are those of the contract of import-linter in pyproject.toml, the texts the first
sentences of the packages' docstrings. The figure is docs/assets/architecture.svg: its boxes have a
light background of their own, so that it is legible on light and on dark pages.
"""

import ast
import textwrap
import tomllib
from html import escape

from scripts.pages import DAYS, ROOT

FIGURE = DAYS.parent / "assets/architecture.svg"
WIDTH, LEFT, GAP = 880, 44, 10  # pixels: the figure, the arrow, between boxes
LINE, CHARACTER = 15, 6.5  # pixels of a line of text and, on average, of a character


def layers() -> list[list[str]]:
    """Return the packages of each layer, the highest first; entry scripts are above all."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tool = project["tool"]
    (contract,) = [one for one in tool["importlinter"]["contracts"] if one["type"] == "layers"]
    return [layer.split(" | ") for layer in contract["layers"]]


def entry_scripts() -> list[str]:
    """Return the file names of the entry scripts."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [f"{name}.py" for name in project["tool"]["setuptools"]["py-modules"]]


def purpose(package: str) -> str:
    """Return the first sentence of a package's docstring."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    sentence = (ast.get_docstring(tree) or "").replace("`", "").split(". ")[0]
    return " ".join(sentence.split()).rstrip(".")


def draw() -> str:
    """Return the figure as SVG."""
    rows = [[("entry scripts", ", ".join(entry_scripts()))]]
    rows += [[(f"{name}/", purpose(name)) for name in layer] for layer in layers()]
    parts, top = [], 4
    for row in rows:
        width = (WIDTH - LEFT - GAP * (len(row) - 1) - 4) / len(row)
        texts = [textwrap.wrap(text, int((width - 16) / CHARACTER)) for _, text in row]
        height = 28 + LINE * max(map(len, texts))
        for number, ((name, _), lines) in enumerate(zip(row, texts, strict=True)):
            left = LEFT + number * (width + GAP)
            parts.append(
                f'<rect x="{left:.0f}" y="{top}" width="{width:.0f}" height="{height}" rx="6"/>'
            )
            middle = left + width / 2
            parts.append(f'<text class="name" x="{middle:.0f}" y="{top + 19}">{name}</text>')
            parts += [
                f'<text x="{middle:.0f}" y="{top + 36 + LINE * i}">{escape(line)}</text>'
                for i, line in enumerate(lines)
            ]
        top += height + GAP
    bottom = top - GAP
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + 4}" \
viewBox="0 0 {WIDTH} {bottom + 4}" role="img">
<title>Packages by layer: each imports only from the rows below its own</title>
<style>
text {{ font: 12px system-ui, "Segoe UI", sans-serif; fill: #1a1a1a; text-anchor: middle; }}
.name {{ font-size: 14px; font-weight: 600; }}
.arrow {{ fill: #7b84a5; }}
rect {{ fill: #e8eaf6; stroke: #5c6bc0; }}
path {{ fill: none; stroke: #7b84a5; stroke-width: 2; }}
</style>
<path d="M 22 8 V {bottom - 6} m -6 -9 l 6 9 l 6 -9"/>
<text class="arrow" transform="translate(12 {bottom // 2}) rotate(-90)">imports</text>
{chr(10).join(parts)}
</svg>
"""


def main() -> None:
    """Write the figure."""
    FIGURE.write_text(draw(), encoding="utf-8")
    print(f"wrote {FIGURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
