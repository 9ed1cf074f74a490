"""Quantization from first principles: absmax int8 and the 4-bit NormalFloat of QLoRA.

Dettmers et al. 2022, "LLM.int8()": a row of weights is divided by its largest absolute value and
rounded to 8 bits, w ≈ s q. Dettmers et al. 2023, "QLoRA": weights are about normally distributed,
so the 16 values of NF4 are quantiles of the normal distribution, and each block of 64 weights has
its own scale. Equal to bitsandbytes in a test; modules/nets/layers/quantized.py uses both.
"""

import torch
from torch import Tensor

BLOCK = 64
# 1 - 1/2 (1/32 + 1/30): the mean of the outermost quantiles of 16 and 15 equal parts
OFFSET = 0.9677083


def quantize_absmax(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 numbers (R, C) and one scale per row (R,)."""
    scale = weight.abs().amax(dim=1) / 127  # (R,)
    return (weight / scale[:, None]).round().to(torch.int8), scale


def dequantize_absmax(numbers: Tensor, scale: Tensor) -> Tensor:
    return numbers * scale[:, None]  # (R, C)


def nf4_values() -> Tensor:
    """Return the 16 values of NF4, in [-1, 1] and with an exact 0 (QLoRA, appendix E).

    8 quantiles of the positive half, 7 of the negative half and 0.
    """
    positive = torch.special.ndtri(torch.linspace(OFFSET, 0.5, 9, dtype=torch.float64)[:-1])  # (8,)
    negative = -torch.special.ndtri(torch.linspace(OFFSET, 0.5, 8, dtype=torch.float64)[:-1])
    values = torch.cat([positive, torch.zeros(1), negative]).sort().values  # (16,)
    return (values / values.max()).float()


def quantize_nf4(weight: Tensor, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """Return the index of the nearest NF4 value of each weight and the scale of each block.

    Args:
        weight: Any shape; the number of weights is a multiple of `block`.
        block: Number of weights that share a scale.

    Returns:
        Indices in 0…15, uint8 (blocks, block), and scales (blocks,).
    """
    blocks = weight.reshape(-1, block)  # (N, block)
    scale = blocks.abs().amax(dim=1)  # (N,)
    values = nf4_values()
    middles = (values[1:] + values[:-1]) / 2  # (15,)
    return torch.bucketize(blocks / scale[:, None], middles).to(torch.uint8), scale


def dequantize_nf4(indices: Tensor, scale: Tensor, shape: torch.Size) -> Tensor:
    return (nf4_values()[indices.long()] * scale[:, None]).reshape(shape)


def pack(indices: Tensor) -> Tensor:
    """Return two indices per byte, the first one in the upper half; (N · block / 2,)."""
    first, second = indices.flatten().view(-1, 2).unbind(dim=1)
    return first << 4 | second
