"""Draw the filters of the first layer, and the feature maps of one test image."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from engine.eval_mode import eval_mode
from engine.guards.requirements import require_attributes
from engine.run.figures import publish
from plotting.denormalize import denormalize, is_image_batch
from plotting.feature_maps import feature_maps_figure, filters_figure


class FeatureMaps(Callback):
    """Draw `figures/filters.png` and `figures/feature_maps.png` after a test.

    Filters are the weights of the network's first `nn.Conv2d`, or of its first `nn.Linear` over
    whole images. Feature maps are the outputs of its `nn.Conv2d` layers, before the activation, for
    the first test image. The task needs a `net`.

    Args:
        filters: Maximum number of filters, at least 1.
        channels: Maximum number of channels per layer, at least 1.
        layers: Maximum number of layers, evenly spaced from first to last, at least 1.
    """

    def __init__(self, filters: int = 64, channels: int = 12, layers: int = 8) -> None:
        if min(filters, channels, layers) < 1:
            raise ValueError(
                "FeatureMaps: filters, channels and layers must be at least 1, "
                f"got {filters}, {channels} and {layers}."
            )
        self.filters = filters
        self.channels = channels
        self.layers = layers

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        require_attributes(self, pl_module, "net", such_as="modules.Classifier")

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
            inputs = batch[0] if isinstance(batch, list | tuple) else batch
            self.inputs = inputs[:1].clone() if is_image_batch(inputs) else ()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        inputs, self.inputs = self.inputs, None
        if not is_image_batch(inputs):
            rank_zero_warn(
                "FeatureMaps draws nothing: it shows grayscale or RGB images (B, 1 or 3, H, W), "
                "which this test set has not. Remove the callback from trainer.callbacks."
            )
            return
        net = cast(nn.Module, pl_module.net)
        first = first_layer(net, inputs[0])
        if first is None:
            rank_zero_warn(
                f"FeatureMaps draws nothing: {type(net).__name__} has neither an nn.Conv2d nor an "
                f"nn.Linear with in_features={inputs[0].numel()}, the size of an image. Remove the "
                "callback from trainer.callbacks."
            )
            return
        publish(trainer, "filters", lambda: filters_figure(*first, self.filters))

        with trainer.precision_plugin.forward_context():
            maps = convolution_outputs(net, inputs.to(pl_module.dtype))
        if maps:
            image = denormalize(inputs, trainer)[0]
            publish(
                trainer,
                "feature_maps",
                lambda: feature_maps_figure(image, maps, self.channels, self.layers),
            )


def first_layer(net: nn.Module, image: Tensor) -> tuple[str, Tensor] | None:
    """Return name and weights (N, C, h, w) of the layer that takes the image (C, H, W)."""
    layers = list(net.named_modules())
    for name, layer in layers:
        if isinstance(layer, nn.Conv2d):
            return name, layer.weight.detach().float().cpu()  # (N, C, h, w)
    for name, layer in layers:
        if isinstance(layer, nn.Linear) and layer.in_features == image.numel():
            weights = layer.weight.detach().float().cpu()
            return name, weights.view(-1, *image.shape)  # (N, C, H, W)
    return None


def convolution_outputs(net: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """Return the first output (N, h, w) of each nn.Conv2d for inputs (1, C, H, W).

    Weights, buffers, modes, random states and hooks are as before afterwards.
    """
    maps: dict[str, Tensor] = {}

    def store(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(layer: nn.Module, args: Any, output: Tensor) -> None:
            # A copy, because an in-place ReLU may follow.
            maps.setdefault(name, output[0].detach().to("cpu", torch.float32, copy=True))

        return hook

    with ExitStack() as stack:
        stack.enter_context(isolate_rng())
        stack.enter_context(torch.inference_mode())
        # A compiled graph does not run hooks that were added after compilation.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(eval_mode(net))
        for name, layer in net.named_modules():
            if isinstance(layer, nn.Conv2d):
                stack.callback(layer.register_forward_hook(store(name)).remove)
        net(inputs)
    return maps
