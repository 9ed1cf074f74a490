"""The cross-entropy of many tokens over many words, as one pass over the logits each way.

`F.cross_entropy` on logits in bfloat16 makes a copy in float32, then the log-probabilities, and
with label smoothing some more, each of tokens times words. Here a few rows at a time, which stay in
the cache, go from logits to loss, and from loss to gradients: for 2,176 tokens and 5,000 words on
one CPU core 33 ms instead of 132.
"""

from typing import Any

import torch
from torch import Tensor

ROWS = 64  # at once: 64 × 5,000 words in float32 are 1.3 MB


class TokenLoss(torch.autograd.Function):
    """Sum of the nats over all tokens whose target counts."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, smoothing: float, ignored: int
    ) -> Tensor:
        # loss = log Σ_v exp(l_v) - (1 - ε) l_y - ε mean_v l_v
        counts = targets != ignored  # (N,)
        chosen = targets.where(counts, 0)  # (N,)
        # (N,) log Σ exp
        levels = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        losses = torch.empty_like(levels)  # (N,)
        for start in range(0, len(logits), ROWS):
            rows = slice(start, start + ROWS)
            some = logits[rows].float()  # (R, V)
            levels[rows] = some.logsumexp(dim=1)
            right = some.gather(1, chosen[rows, None])[:, 0]  # (R,)
            losses[rows] = levels[rows] - (1 - smoothing) * right
            if smoothing:
                losses[rows] -= smoothing * some.mean(dim=1)
        ctx.save_for_backward(logits, chosen, counts, levels)
        ctx.smoothing = smoothing
        return losses.where(counts, 0.0).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        logits, chosen, counts, levels = ctx.saved_tensors
        scale = counts * gradients[0]  # (N,)
        smoothing, words = ctx.smoothing, logits.shape[1]
        result = torch.empty_like(logits)  # (N, V)
        for start in range(0, len(logits), ROWS):
            rows = slice(start, start + ROWS)
            # dloss / dl_v = softmax(l)_v - (1 - ε) [v = y] - ε / V
            some = logits[rows].float().sub_(levels[rows, None]).exp_()  # (R, V)
            if smoothing:
                some.sub_(smoothing / words)
            told = torch.full_like(levels[rows, None], smoothing - 1.0)  # (R, 1)
            some.scatter_add_(1, chosen[rows, None], told).mul_(scale[rows, None])
            result[rows] = some
        return result, None, None, None


def token_loss(
    logits: Tensor, targets: Tensor, smoothing: float = 0.0, ignored: int = -100
) -> Tensor:
    """The sum over all tokens; `F.cross_entropy(…, reduction="sum")` in float32.

    Args:
        logits: (N, V), of any precision.
        targets: (N,), int64.
        smoothing: Probability in [0, 1) that is spread over all words.
        ignored: A target that counts for nothing.
    """
    loss: Tensor = TokenLoss.apply(logits, targets, smoothing, ignored)
    return loss
