"""Draw filters and feature maps of a convolutional network."""

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

SIGNED = colormaps["RdBu_r"]  # zero is white


def filters_figure(name: str, weights: Tensor, most: int) -> Figure:
    """Draw weights (N, C, h, w): RGB filters in color, others from blue (−) to red (+)."""
    shown = weights[:most]
    count, channels, height, width = weights.shape
    title = f"{name}: {_amount(len(shown), count)} filters, {height} × {width}"
    if channels not in (1, 3):
        title += f", mean over {channels} input channels"
        shown = shown.mean(dim=1, keepdim=True)
    limit = _limit(shown)
    if channels == 3:
        tiles = (0.5 + 0.5 * shown / limit).clamp(0, 1).permute(0, 2, 3, 1).numpy()
        title += ", in RGB"
    else:
        tiles = _signed(shown[:, 0], limit)
    mosaic = _mosaic(tiles, math.ceil(math.sqrt(len(tiles) * 1.6)))
    colorbar_width = 0.0 if channels == 3 else 0.9
    figure = Figure(figsize=(6 + colorbar_width, 6 * mosaic.shape[0] / mosaic.shape[1] + 0.4))
    axes = figure.add_subplot()
    axes.imshow(mosaic)
    axes.axis("off")
    if channels != 3:
        colors = ScalarMappable(Normalize(-limit, limit), SIGNED)
        scale = figure.colorbar(colors, ax=axes, fraction=0.04, pad=0.02, aspect=30)
        scale.set_label("weight")
        scale.outline.set_visible(False)
    figure.suptitle(title)
    return figure


def feature_maps_figure(
    image: np.ndarray, maps: dict[str, Tensor], channels: int, layers: int
) -> Figure:
    """Draw an image (H, W, C) and beside it the first feature maps of each layer.

    Args:
        image: The input, with values in [0, 1].
        maps: Feature maps (N, h, w) by layer.
        channels: Maximum number of channels per layer.
        layers: Maximum number of layers, evenly spaced from first to last.
    """
    chosen = np.unique(np.linspace(0, len(maps) - 1, min(layers, len(maps))).round().astype(int))
    names = [list(maps)[index] for index in chosen]
    columns = max(min(channels, len(maps[name])) for name in names)
    figure = Figure(figsize=(9, (7.4 / columns + 0.25) * len(names) + 0.4))
    grid = figure.add_gridspec(len(names), 2, width_ratios=[1.4, 9])
    axes = figure.add_subplot(grid[:, 0], anchor="N")
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    axes.set_title("input", fontsize=8)
    axes.axis("off")
    for row, name in enumerate(names):
        count, height, width = maps[name].shape
        shown = maps[name][:channels]
        axes = figure.add_subplot(grid[row, 1], anchor="W")
        axes.imshow(_mosaic(_signed(shown, _limit(shown)), columns))
        title = f"{name}: {_amount(len(shown), count)} channels, {height} × {width}"
        axes.set_title(title, loc="left", fontsize=8)
        axes.axis("off")
    figure.suptitle("Feature maps of one test image (blue −, red +)")
    return figure


def _amount(shown: int, count: int) -> str:
    return f"{count}" if shown == count else f"first {shown} of {count}"


def _limit(values: Tensor) -> float:
    # A quantile: a single outlier in the color scale would make all other values pale.
    return max(float(np.quantile(values.abs().numpy(), 0.995)), 1e-8)


def _signed(values: Tensor, limit: float) -> np.ndarray:
    return SIGNED(Normalize(-limit, limit, clip=True)(values.numpy()))[..., :3]  # (N, h, w, 3)


def _mosaic(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Arrange tiles (N, h, w, 3) row by row with white gaps; small tiles are enlarged."""
    factor = math.ceil(56 / tiles.shape[2])
    tiles = tiles.repeat(factor, axis=1).repeat(factor, axis=2)
    count, height, width, _ = tiles.shape
    gap = round(width / 14)
    rows = math.ceil(count / columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 1.0)
    for index, tile in enumerate(tiles):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        canvas[top : top + height, left : left + width] = tile
    return canvas
