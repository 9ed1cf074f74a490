"""Draw the ladder of architectures: `python -m scripts.draw_ladder --scheme light > ladder.svg`.

A rung is a class of network; its day and expected result are those of the first row of
docs/course.md that trains it.
"""

import argparse
import io
import re
from typing import NamedTuple

import yaml

from scripts.pages import ROOT

SCHEMES = {"light": ("#1a1a1a", "#6b7280"), "dark": ("#f3f4f6", "#9ca3af")}
COLORS = ("#2563eb", "#0d9488", "#7c3aed", "#d97706", "#dc2626")  # of each ten days


class Rung(NamedTuple):
    """A network of the ladder."""

    day: int
    network: str
    expected: str


def rungs() -> list[Rung]:
    """Return the networks of docs/course.md in the order of the days."""
    found: dict[str, Rung] = {}
    for line in (ROOT / "docs/course.md").read_text(encoding="utf-8").splitlines():
        if not re.match(r"\| \d+ \|", line):
            continue
        day, _, command, expected = line.strip("| ").split(" | ")
        for config in re.findall(r"\bfit ([\w-]+/[\w-]+)", command):
            network = network_of(config)
            if network and expected != "–":
                found.setdefault(
                    network, Rung(int(day), network, expected.split(",")[0].split(";")[0])
                )
    return sorted(found.values(), key=lambda rung: rung.day)


def network_of(config: str) -> str:
    """Return the name of a config's network, with its kind of cell or model where it has one."""
    content = yaml.safe_load((ROOT / f"configs/{config}.yaml").read_text(encoding="utf-8"))
    model = content.get("model", {})
    net = model.get("init_args", {}).get("net") if isinstance(model, dict) else None
    if not net:
        return ""
    if isinstance(net, str):
        return net.rpartition(".")[2]
    arguments = net.get("init_args", {})
    kinds = [arguments.get(key, "eager") for key in ("cell", "attention", "name")]
    kind = next((one for one in kinds if one != "eager"), "")
    return net["class_path"].rpartition(".")[2] + (f" ({kind})" if kind else "")


def draw(scheme: str) -> str:
    """Return the figure as SVG with transparent background.

    Args:
        scheme: "light" or "dark", the colors of the page below.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    foreground, muted = SCHEMES[scheme]
    steps = rungs()
    figure = Figure(figsize=(5.6, 0.24 * len(steps) + 0.4))
    axes = figure.add_axes((0, 0, 1, 1))
    for row, rung in enumerate(steps):
        left, color = 0.3 * row, COLORS[(rung.day - 1) // 10]
        axes.plot([left, left, left + 0.7], [row - 1, row, row], color=color, linewidth=2.5)
        axes.text(left - 0.3, row, f"day {rung.day}", ha="right", va="center", color=muted, size=7)
        label = axes.text(left + 1, row, rung.network, va="center", color=foreground, size=9)
        axes.annotate(
            "" if rung.expected == "–" else rung.expected,
            (1, 0.5),
            xycoords=label,
            va="center",
            xytext=(8, 0),
            textcoords="offset points",
            color=muted,
            size=7,
        )
    axes.set(xlim=(-2, 0.3 * len(steps) + 14), ylim=(-1.2, len(steps)))
    axes.set_axis_off()
    target = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "ladder"}):
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None})
    return target.getvalue()


def main() -> None:
    """Print the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scheme", choices=SCHEMES, default="light")
    print(draw(parser.parse_args().scheme))


if __name__ == "__main__":
    main()
