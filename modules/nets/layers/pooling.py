"""From one vector a token to one vector a text; what is padding counts for nothing."""

import torch
from torch import Tensor


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean over the tokens of each text.

    Args:
        x: (B, T, D).
        mask: (B, T), True where there is text: in every row once at least.
    """
    inside = mask.unsqueeze(-1).to(x.dtype)  # (B, T, 1)
    return (x * inside).sum(dim=1) / inside.sum(dim=1)  # (B, D)


def masked_max(x: Tensor, mask: Tensor) -> Tensor:
    """The largest value of each channel over the tokens of each text; arguments as above."""
    return x.masked_fill(~mask.unsqueeze(-1), float("-inf")).amax(dim=1)  # (B, D)


def last_token(x: Tensor, mask: Tensor) -> Tensor:
    """The vector of the last token of each text; arguments as above."""
    last = mask.sum(dim=1) - 1  # (B,)
    return x[torch.arange(len(x), device=x.device), last]  # (B, D)
