"""Draw many small images in one figure, each with a caption."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

HEADING = 0.34  # inches above the grid
MARGIN = 0.06  # inches around each image


class Caption(NamedTuple):
    text: str
    color: str


def image_grid(
    heading: str,
    images: Sequence[np.ndarray],
    captions: Sequence[Caption | None],
    columns: int,
    width: float,
    lines: int,
    fontsize: float,
) -> Figure:
    """Draw images row by row.

    All images share one pair of axes in units of inches, which is much faster than one pair of axes
    per image.

    Args:
        heading: Title of the figure.
        images: Arrays (H, W, 1) or (H, W, 3) of one size, with values in [0, 1].
        captions: Caption above each image, or None.
        columns: Images per row.
        width: Width of a cell in inches.
        lines: Lines of the longest caption.
        fontsize: Font size of captions in points.
    """
    rows = -(-len(images) // columns)
    aspect = images[0].shape[0] / images[0].shape[1]
    image = width - 2 * MARGIN, (width - 2 * MARGIN) * aspect  # width and height in inches
    above = 1.25 * lines * fontsize / 72 + 2 * MARGIN
    height = image[1] + above
    size = columns * width, rows * height + HEADING + MARGIN

    figure = Figure(figsize=size)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1), frameon=False, xticks=[], yticks=[])
    for number, (pixels, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(number, columns)
        left = column * width + MARGIN
        top = HEADING + row * height + above
        extent = (left, left + image[0], top + image[1], top)
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=extent)
        if caption is not None:
            axes.text(
                left + image[0] / 2,
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
