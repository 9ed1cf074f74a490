"""Cross-entropy over a large vocabulary with fewer copies of the logits.

`F.cross_entropy` on bfloat16 logits makes several float32 copies of shape (tokens, vocabulary),
more of them with label smoothing. Here a few rows at a time, which fit the cache, are processed:
a whole training step of configs/multi30k/transformer.yaml (2,176 tokens, 5,000 words, bf16 on one
CPU core with AMX) takes 417 ms instead of 523 ms (a factor of 1.25).
"""

from typing import Any

import torch
from torch import Tensor

ROWS = 64  # 64 rows of 5,000 words in float32 are 1.3 MB


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, label_smoothing: float, ignore_index: int
    ) -> Tensor:
        # loss = log Σ_v exp(l_v) - (1 - ε) l_y - ε mean_v l_v
        mask = targets != ignore_index  # (N,)
        indices = targets.where(mask, 0)  # (N,)
        normalizers = torch.empty(len(logits), dtype=torch.float32, device=logits.device)  # (N,)
        losses = torch.empty_like(normalizers)  # (N,)
        for start in range(0, len(logits), ROWS):
            rows = slice(start, start + ROWS)
            chunk = logits[rows].float()  # (R, V)
            normalizers[rows] = chunk.logsumexp(dim=1)
            target_logits = chunk.gather(1, indices[rows, None])[:, 0]  # (R,)
            losses[rows] = normalizers[rows] - (1 - label_smoothing) * target_logits
            if label_smoothing:
                losses[rows] -= label_smoothing * chunk.mean(dim=1)
        ctx.save_for_backward(logits, indices, mask, normalizers)
        ctx.label_smoothing = label_smoothing
        return losses.where(mask, 0.0).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        logits, indices, mask, normalizers = ctx.saved_tensors
        scale = mask * gradients[0]  # (N,)
        label_smoothing, vocab_size = ctx.label_smoothing, logits.shape[1]
        result = torch.empty_like(logits)  # (N, V)
        for start in range(0, len(logits), ROWS):
            rows = slice(start, start + ROWS)
            # dloss / dl_v = softmax(l)_v - (1 - ε) [v = y] - ε / V
            chunk = logits[rows].float().sub_(normalizers[rows, None]).exp_()  # (R, V)
            if label_smoothing:
                chunk.sub_(label_smoothing / vocab_size)
            true_class = torch.full_like(normalizers[rows, None], label_smoothing - 1.0)  # (R, 1)
            chunk.scatter_add_(1, indices[rows, None], true_class).mul_(scale[rows, None])
            result[rows] = chunk
        return result, None, None, None


def cross_entropy_sum(
    logits: Tensor, targets: Tensor, label_smoothing: float = 0.0, ignore_index: int = -100
) -> Tensor:
    """Return `F.cross_entropy(..., reduction="sum")`, computed in float32.

    Args:
        logits: (N, V), of any precision.
        targets: (N,), int64.
        label_smoothing: Probability in [0, 1) that is distributed over all words.
        ignore_index: Target that is excluded from the loss.
    """
    loss: Tensor = _CrossEntropy.apply(logits, targets, label_smoothing, ignore_index)
    return loss
