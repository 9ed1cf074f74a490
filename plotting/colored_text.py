"""Texts for people to look at, each word on a ground as deep as its weight: a figure, and HTML."""

import html
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from engine.run.figures import BLUE, INK, ORANGE

COLUMNS = 100  # characters in a line of the figure
MOST_LINES = 6  # of a text in the figure; HTML has all of it
GROUND = "#E69F00"
FONT = "DejaVu Sans Mono"  # comes with matplotlib; all letters are equally wide


class Passage(NamedTuple):
    """A text with what was said about it."""

    title: str
    right: bool  # whether the title is good news
    words: Sequence[str]
    weights: Sequence[float] | None = None  # 0 or more, one a word; None: nothing is coloured


def judged(
    words: Sequence[str],
    class_names: Sequence[str],
    target: int,
    predicted: int,
    confidence: float,
    weights: Sequence[float] | None = None,
) -> Passage:
    """A text titled with what a net said about it, and whether it was right."""
    right = predicted == target
    verdict = "rightly" if right else f"is {class_names[target]}"
    title = f"said {class_names[predicted]} ({confidence:.0%}), {verdict}"
    return Passage(title, right, words, weights)


def shades(passage: Passage) -> np.ndarray:
    """How deep the ground of each word is, 0 … 1: the largest weight of a text is 1."""
    weights = np.zeros(len(passage.words)) if passage.weights is None else passage.weights
    values = np.asarray(weights, dtype=float)
    return values / max(values.max(initial=0), 1e-12)


def as_html(heading: str, passages: Sequence[Passage]) -> str:
    """A page by itself, to be opened in any browser."""
    blocks = []
    for passage in passages:
        words = " ".join(
            f'<span style="background: {GROUND}{round(255 * shade):02x}">{html.escape(word)}</span>'
            if shade > 0.005
            else html.escape(word)
            for word, shade in zip(passage.words, shades(passage), strict=True)
        )
        color = BLUE if passage.right else ORANGE
        title = html.escape(passage.title)
        blocks.append(f'<p><b style="color: {color}">{title}</b><br>\n{words}</p>')
    style = f"max-width: 50em; margin: 2em auto; font: 16px/1.6 sans-serif; color: {INK}"
    return (
        f'<!DOCTYPE html>\n<meta charset="utf-8">\n<title>{html.escape(heading)}</title>\n'
        f'<body style="{style}">\n<h1>{html.escape(heading)}</h1>\n' + "\n".join(blocks) + "\n"
    )


def in_lines(words: Sequence[str], columns: int = COLUMNS) -> list[list[int]]:
    """Which words stand in each line, by their numbers."""
    lines: list[list[int]] = []
    used = columns + 1
    for number, word in enumerate(words):
        width = len(word) + 1
        if used + width > columns:
            lines.append([])
            used = 0
        lines[-1].append(number)
        used += width
    return lines


def text_figure(heading: str, passages: Sequence[Passage]) -> Figure:
    """Draws the texts one below the other; of a long one, its first lines."""
    shown = [[shorter(word) for word in passage.words] for passage in passages]
    lines = [in_lines(words) for words in shown]
    # A title, the lines, half a line of air.
    rows = [1 + min(len(found), MOST_LINES) + 0.6 for found in lines]
    height = sum(rows)
    size, line = 7.5, 0.17  # points, inches
    # A letter is 0.602 times as wide as high, and on whole pixels a little more.
    width = COLUMNS * size * 0.645 / 72
    figure = Figure(figsize=(width + 0.4, height * line + 0.5))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.2 / (width + 0.4), 0, width / (width + 0.4), 1))
    axes.set(xlim=(0, COLUMNS), ylim=(height + 0.3, -0.5 / line + 0.5))
    axes.axis("off")
    axes.text(0, -1.2, plain(heading), fontsize=11)
    top = 0.6
    for passage, words, found, taken in zip(passages, shown, lines, rows, strict=True):
        color = BLUE if passage.right else ORANGE
        title = textwrap.shorten(passage.title, COLUMNS, placeholder=" …")
        axes.text(0, top, plain(title), fontsize=8, color=color, va="center", weight="bold")
        depth = shades(passage)
        for below, numbers in enumerate(found[:MOST_LINES], start=1):
            column = 0
            for number in numbers:
                word = words[number]
                y = top + below
                if depth[number] > 0.005:
                    axes.fill_between(
                        [column - 0.3, column + len(word) + 0.3],
                        y - 0.48,
                        y + 0.48,
                        color=GROUND,
                        alpha=depth[number],
                        linewidth=0,
                    )
                axes.text(column, y, plain(word), fontsize=size, family=FONT, va="center")
                column += len(word) + 1
            if below == MOST_LINES and len(found) > MOST_LINES:
                axes.text(column, top + below, "…", fontsize=size, family=FONT, va="center")
        top += taken
    return figure


def shorter(word: str) -> str:
    word = word.strip() or "␣"
    return word if len(word) <= 30 else f"{word[:29]}…"


def plain(text: str) -> str:
    """A pair of dollars would be mathematics to matplotlib."""
    return text.replace("$", r"\$")
