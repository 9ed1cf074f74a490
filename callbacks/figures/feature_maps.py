"""What the first layer looks for, and what every convolution sees in one test picture."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, cast

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor, nn

from engine.run.figures import publish
from plotting.denormalize import denormalize, is_image_batch

SIGNED = colormaps["RdBu_r"]  # white is zero


class FeatureMaps(Callback):
    """Draws `figures/filters.png` and `figures/feature_maps.png` after a test.

    Filters are the weights of the net's first `nn.Conv2d`, or else of its first `nn.Linear` that
    reads whole pictures. Feature maps are the outputs of its `nn.Conv2d` layers, before activation,
    for the first test picture. The task must have a `net`.

    Args:
        filters: At most so many filters are drawn, at least 1.
        channels: At most so many channels of each layer are drawn, at least 1.
        layers: At most so many layers are drawn, spread evenly from first to last, at least 1.
    """

    def __init__(self, filters: int = 64, channels: int = 12, layers: int = 8) -> None:
        if min(filters, channels, layers) < 1:
            raise ValueError(
                "filters, channels and layers must be at least 1, "
                f"not {filters}, {channels} and {layers}."
            )
        self.filters = filters
        self.channels = channels
        self.layers = layers

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.inputs: Any = None

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self.inputs is None:
            inputs, _ = batch
            self.inputs = inputs[:1].clone() if is_image_batch(inputs) else ()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        inputs, self.inputs = self.inputs, None
        if not is_image_batch(inputs):
            rank_zero_warn(
                "FeatureMaps draws nothing: it shows grey or RGB pictures (B, 1 or 3, H, W), and "
                "this test set holds something else. Leave the callback out for such data."
            )
            return
        net = cast(nn.Module, pl_module.net)
        first = first_layer(net, inputs[0])
        if first is None:
            rank_zero_warn(
                f"FeatureMaps draws nothing: {type(net).__name__} has neither an nn.Conv2d nor an "
                f"nn.Linear with in_features={inputs[0].numel()}, the size of a whole picture. "
                "Leave the callback out for such nets."
            )
            return
        publish(trainer, "filters", lambda: filters_figure(*first, self.filters))

        with trainer.precision_plugin.forward_context():
            maps = convolution_outputs(net, inputs.to(pl_module.dtype))
        if maps:
            picture = denormalize(inputs, trainer)[0]
            publish(
                trainer,
                "feature_maps",
                lambda: feature_maps_figure(picture, maps, self.channels, self.layers),
            )


def first_layer(net: nn.Module, picture: Tensor) -> tuple[str, Tensor] | None:
    """Finds the layer that reads the picture (C, H, W): its name and weights (N, C, h, w)."""
    layers = list(net.named_modules())
    for name, layer in layers:
        if isinstance(layer, nn.Conv2d):
            return name, layer.weight.detach().float().cpu()  # (N, C, h, w)
    for name, layer in layers:
        if isinstance(layer, nn.Linear) and layer.in_features == picture.numel():
            weights = layer.weight.detach().float().cpu()
            return name, weights.view(-1, *picture.shape)  # (N, C, H, W)
    return None


def convolution_outputs(net: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """Runs `net` on inputs (1, C, H, W) and keeps what each nn.Conv2d first gave, (N, h, w).

    Leaves no trace: weights, buffers, modes and random states are as before, no hook stays.
    """
    maps: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(layer: nn.Module, args: Any, output: Tensor) -> None:
            # A copy: the ReLU that follows may write over it.
            maps.setdefault(name, output[0].detach().to("cpu", torch.float32, copy=True))

        return hook

    modes = [(module, module.training) for module in net.modules()]
    with ExitStack() as stack:
        stack.enter_context(isolate_rng())
        stack.enter_context(torch.inference_mode())
        # A compiled graph does not run hooks that were added after it was made.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        for name, layer in net.named_modules():
            if isinstance(layer, nn.Conv2d):
                stack.callback(layer.register_forward_hook(keep(name)).remove)
        try:
            net.eval()  # no dropout, and batch norm's statistics stay
            net(inputs)
        finally:
            for module, training in modes:
                module.training = training
    return maps


def filters_figure(name: str, weights: Tensor, most: int) -> Figure:
    """Draws weights (N, C, h, w): RGB filters in colour, others from blue (−) to red (+)."""
    shown = weights[:most]
    count, channels, height, width = weights.shape
    title = f"Layer {name}: {_amount(len(shown), count)} filters of {height} × {width}"
    if channels not in (1, 3):
        title += f", mean over {channels} input channels"
        shown = shown.mean(dim=1, keepdim=True)
    limit = _limit(shown)
    if channels == 3:
        tiles = (0.5 + 0.5 * shown / limit).clamp(0, 1).permute(0, 2, 3, 1).numpy()
        title += " in red, green and blue"
    else:
        tiles = _signed(shown[:, 0], limit)
    columns = math.ceil(math.sqrt(len(tiles) * 1.6))
    picture = _mosaic(tiles, columns)
    bar = 0.0 if channels == 3 else 0.9
    figure = Figure(figsize=(6 + bar, 6 * picture.shape[0] / picture.shape[1] + 0.4))
    axes = figure.add_subplot()
    axes.imshow(picture)
    axes.axis("off")
    if channels != 3:
        scale = figure.colorbar(
            ScalarMappable(Normalize(-limit, limit), SIGNED),
            ax=axes,
            fraction=0.04,
            pad=0.02,
            aspect=30,
        )
        scale.set_label("weight")
        scale.outline.set_visible(False)
    figure.suptitle(title)
    return figure


def feature_maps_figure(
    picture: np.ndarray, maps: dict[str, Tensor], channels: int, layers: int
) -> Figure:
    """Draws a picture (H, W, C) and below it one row a layer: its first maps (N, h, w)."""
    chosen = np.unique(np.linspace(0, len(maps) - 1, min(layers, len(maps))).round().astype(int))
    names = [list(maps)[index] for index in chosen]
    columns = max(min(channels, len(maps[name])) for name in names)
    figure = Figure(figsize=(9, (7.4 / columns + 0.25) * len(names) + 0.4))
    grid = figure.add_gridspec(len(names), 2, width_ratios=[1.4, 9])
    axes = figure.add_subplot(grid[:, 0], anchor="N")
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
    axes.set_title("input", fontsize=8)
    axes.axis("off")
    for row, name in enumerate(names):
        count, height, width = maps[name].shape
        shown = maps[name][:channels]
        axes = figure.add_subplot(grid[row, 1], anchor="W")
        axes.imshow(_mosaic(_signed(shown, _limit(shown)), columns))
        axes.set_title(
            f"layer {name}: {_amount(len(shown), count)} maps of {height} × {width}",
            loc="left",
            fontsize=8,
        )
        axes.axis("off")
    figure.suptitle("What each convolution makes of one test picture (red +, blue −)")
    return figure


def _amount(shown: int, count: int) -> str:
    return f"{count}" if shown == count else f"first {shown} of {count}"


def _limit(values: Tensor) -> float:
    # Not the maximum: one stray value would pale all the others.
    return max(float(np.quantile(values.abs().numpy(), 0.995)), 1e-8)


def _signed(values: Tensor, limit: float) -> np.ndarray:
    return SIGNED(Normalize(-limit, limit, clip=True)(values.numpy()))[..., :3]  # (N, h, w, 3)


def _mosaic(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Lays tiles (N, h, w, 3) out in rows with white gaps; small ones are enlarged before."""
    factor = math.ceil(56 / tiles.shape[2])
    tiles = tiles.repeat(factor, axis=1).repeat(factor, axis=2)
    count, height, width, _ = tiles.shape
    gap = round(width / 14)
    rows = math.ceil(count / columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 1.0)  # white
    for index, tile in enumerate(tiles):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        canvas[top : top + height, left : left + width] = tile
    return canvas
