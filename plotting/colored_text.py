"""Draw texts with a background color for each word, as a figure and as an HTML page."""

import html
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import rcParams
from matplotlib.figure import Figure

from engine.run.figures import BLUE, INK, ORANGE

COLUMNS = 100  # characters per line of the figure
MAX_LINES = 6  # lines of a text in the figure; the HTML page shows all of it
HIGHLIGHT = "#E69F00"
MONOSPACE = "DejaVu Sans Mono"  # comes with matplotlib


class Passage(NamedTuple):
    """A text with a title, such as a prediction, and an optional weight for each word."""

    title: str
    correct: bool  # the title is blue if True, else orange
    words: Sequence[str]
    weights: Sequence[float] | None = None  # one per word, at least 0; None: no highlighting


def prediction_passage(
    words: Sequence[str],
    class_names: Sequence[str],
    target: int,
    predicted: int,
    confidence: float,
    weights: Sequence[float] | None = None,
) -> Passage:
    """Return a text titled with its predicted class, confidence and true class."""
    correct = predicted == target
    truth = "correct" if correct else f"true {class_names[target]}"
    title = f"predicted {class_names[predicted]} ({confidence:.0%}), {truth}"
    return Passage(title, correct, words, weights)


def relative_weights(passage: Passage) -> np.ndarray:
    """Return the weights of the words, scaled so that the largest is 1."""
    weights = np.zeros(len(passage.words)) if passage.weights is None else passage.weights
    values = np.asarray(weights, dtype=float)
    return values / max(values.max(initial=0), 1e-12)


def passages_page(heading: str, passages: Sequence[Passage]) -> str:
    """Return a self-contained HTML page."""
    blocks = []
    for passage in passages:
        words = " ".join(
            html.escape(word)
            if weight <= 0.005
            else f'<span style="background: {HIGHLIGHT}{round(255 * weight):02x}">'
            f"{html.escape(word)}</span>"
            for word, weight in zip(passage.words, relative_weights(passage), strict=True)
        )
        color = BLUE if passage.correct else ORANGE
        title = html.escape(passage.title)
        blocks.append(f'<p><b style="color: {color}">{title}</b><br>\n{words}</p>')
    style = f"max-width: 50em; margin: 2em auto; font: 16px/1.6 sans-serif; color: {INK}"
    return (
        f'<!DOCTYPE html>\n<meta charset="utf-8">\n<title>{html.escape(heading)}</title>\n'
        f'<body style="{style}">\n<h1>{html.escape(heading)}</h1>\n' + "\n".join(blocks) + "\n"
    )


def wrap_words(words: Sequence[str], columns: int = COLUMNS) -> list[list[int]]:
    """Return the indices of the words of each line."""
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
    """Draw the texts one below the other, each up to `MAX_LINES` lines."""
    shown = [[shorten(word) for word in passage.words] for passage in passages]
    lines = [wrap_words(words) for words in shown]
    # A title, the lines, and 0.6 of a line as spacing.
    rows = [1 + min(len(found), MAX_LINES) + 0.6 for found in lines]
    height = sum(rows)
    size, line = 7.5, 0.17  # font size in points, line height in inches
    # Characters of this font are 0.602 times as wide as high, slightly more after hinting.
    width = COLUMNS * size * 0.645 / 72
    figure = Figure(figsize=(width + 0.4, height * line + 0.5))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.2 / (width + 0.4), 0, width / (width + 0.4), 1))
    axes.set(xlim=(0, COLUMNS), ylim=(height + 0.3, -0.5 / line + 0.5))
    axes.axis("off")
    axes.text(0, -1.2, escape_math(heading), fontsize=11)
    fonts = [MONOSPACE, *rcParams["font.family"]]
    top = 0.6
    for passage, words, found, taken in zip(passages, shown, lines, rows, strict=True):
        color = BLUE if passage.correct else ORANGE
        title = textwrap.shorten(passage.title, COLUMNS, placeholder=" …")
        axes.text(0, top, escape_math(title), fontsize=8, color=color, va="center", weight="bold")
        strength = relative_weights(passage)
        for below, numbers in enumerate(found[:MAX_LINES], start=1):
            column = 0
            for number in numbers:
                word = words[number]
                y = top + below
                if strength[number] > 0.005:
                    axes.fill_between(
                        [column - 0.3, column + len(word) + 0.3],
                        y - 0.48,
                        y + 0.48,
                        color=HIGHLIGHT,
                        alpha=strength[number],
                        linewidth=0,
                    )
                axes.text(column, y, escape_math(word), fontsize=size, family=fonts, va="center")
                column += len(word) + 1
            if below == MAX_LINES and len(found) > MAX_LINES:
                axes.text(column, top + below, "…", fontsize=size, family=fonts, va="center")
        top += taken
    return figure


def shorten(word: str) -> str:
    """Truncate a word to 30 characters and make white space visible."""
    word = word.strip() or "␣"
    return word if len(word) <= 30 else f"{word[:29]}…"


def escape_math(text: str) -> str:
    """Escape dollar signs, between which matplotlib would typeset mathematics."""
    return text.replace("$", r"\$")
