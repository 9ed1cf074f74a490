"""The frozen linear layers of QLoRA: weights of 4 bits in the NF4 format, by bitsandbytes."""

from typing import Any

import bitsandbytes
import torch
from bitsandbytes.functional import dequantize_4bit
from torch import Tensor, nn


class NF4Linear(bitsandbytes.nn.Linear4bit):
    """A linear layer whose weights are quantized, in blocks of 64 with quantized scales.

    The layer of bitsandbytes is for inference in one precision: on CPUs its evaluation mode changes
    the format of the weights, without a gradient of the input, and its bias takes the precision of
    the input. This one computes in the precision of the input, or of autocast, in both modes.

    Its state_dict has no scales: the weights come from the base, which is quantized when it is
    loaded.

    Args:
        linear: The layer to quantize.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None)
        self.weight: Any = bitsandbytes.nn.Params4bit(
            linear.weight.data, requires_grad=False, quant_type="nf4", module=self
        )
        self.bias = linear.bias
        self.to(linear.weight.device)  # which quantizes the weight
        self.requires_grad_(False)
        self.register_state_dict_post_hook(_remove_scales)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        bias = None if self.bias is None else self.bias.to(x.dtype)
        state = self.weight.quant_state
        y: Tensor = bitsandbytes.matmul_4bit(x, self.weight, bias=bias, quant_state=state)
        return y

    def dequantize(self) -> nn.Linear:
        """Return the layer with weights in floating point."""
        linear = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        weight = dequantize_4bit(self.weight.data, self.weight.quant_state)
        linear.weight = nn.Parameter(weight, requires_grad=False)
        linear.bias = self.bias
        return linear


def _remove_scales(layer: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}weight.")]:
        del state[name]
