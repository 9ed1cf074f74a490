"""Many small pictures in one figure, each under a caption of its own."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

HEADING = 0.34  # inches above the grid
MARGIN = 0.06  # inches around each cell


class Caption(NamedTuple):
    text: str
    color: str


def picture_grid(
    heading: str,
    pictures: Sequence[np.ndarray],
    captions: Sequence[Caption | None],
    columns: int,
    width: float,
    lines: int,
    fontsize: float,
) -> Figure:
    """Draws pictures row by row.

    All lie on a single pair of axes, whose unit is the inch: a pair for each, laid out by
    matplotlib, takes far longer.

    Args:
        heading: What stands above all of them.
        pictures: Each (H, W, 1), values in 0 … 1, or (H, W, 3). All of one size.
        captions: What stands above each.
        columns: Cells of a row.
        width: Of a cell in inches.
        lines: Of the longest caption.
        fontsize: Of captions, in points.
    """
    rows = -(-len(pictures) // columns)
    shape = pictures[0].shape[0] / pictures[0].shape[1]
    picture = width - 2 * MARGIN, (width - 2 * MARGIN) * shape  # inches
    above = 1.25 * lines * fontsize / 72 + 2 * MARGIN
    height = picture[1] + above
    size = columns * width, rows * height + HEADING + MARGIN

    figure = Figure(figsize=size)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1), frameon=False, xticks=[], yticks=[])
    for number, (pixels, caption) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(number, columns)
        left = column * width + MARGIN
        top = HEADING + row * height + above
        extent = (left, left + picture[0], top + picture[1], top)
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=extent)
        if caption is not None:
            axes.text(
                left + picture[0] / 2,
                top - MARGIN / 2,
                caption.text,
                ha="center",
                va="bottom",
                fontsize=fontsize,
                color=caption.color,
            )
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0), aspect="auto")
    figure.suptitle(heading, y=1 - HEADING / 2 / size[1], va="center")
    return figure
