"""Pool token vectors to one vector per text, ignoring padding."""

import torch
from torch import Tensor


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the tokens of each text.

    Args:
        x: (B, T, D).
        mask: (B, T), False on padding; every row has at least one token.
    """
    weights = mask.unsqueeze(-1).to(x.dtype)  # (B, T, 1)
    return (x * weights).sum(dim=1) / weights.sum(dim=1)  # (B, D)


def masked_max(x: Tensor, mask: Tensor) -> Tensor:
    """Return the maximum of each channel over the tokens of each text; arguments as above."""
    return x.masked_fill(~mask.unsqueeze(-1), float("-inf")).amax(dim=1)  # (B, D)


def last_token(x: Tensor, mask: Tensor) -> Tensor:
    """Return the vector of the last token of each text; arguments as above."""
    last = mask.sum(dim=1) - 1  # (B,)
    return x[torch.arange(x.shape[0], device=x.device), last]  # (B, D)
