"""Find the first layer at which two networks differ."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


def outputs_by_layer(net: nn.Module, layers: Iterable[str], inputs: Tensor) -> dict[str, Tensor]:
    """Return the output of each layer, in execution order."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str):
        def hook(module, arguments, output):  # copied, since the next layer may work in place
            outputs[name] = (output[0] if isinstance(output, tuple) else output).clone()

        return hook

    hooks = [net.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    with torch.inference_mode():
        net(inputs)
    for hook in hooks:
        hook.remove()
    return outputs


def first_difference(
    ours: nn.Module, theirs: nn.Module, pairs: Mapping[str, str], inputs: Tensor
) -> str | None:
    """Name our first layer whose output differs from the reference's by more than 1e-4.

    Args:
        ours: A network of this project.
        theirs: The reference.
        pairs: Names of equal layers, ours → theirs.
        inputs: Inputs of both.
    """
    a = outputs_by_layer(ours, pairs, inputs)
    b = outputs_by_layer(theirs, pairs.values(), inputs)
    for name, x in a.items():
        y = b[pairs[name]]
        if x.shape != y.shape:
            return f"{name}: shape {tuple(x.shape)} expected {tuple(y.shape)}"
        if not torch.allclose(x, y, atol=1e-4, rtol=1e-4):
            return f"{name}: largest difference {(x - y).abs().max():.2g}"
    return None
