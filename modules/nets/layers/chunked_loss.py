"""Cross-entropy of an output layer with a large vocabulary, without the logits of all tokens.

Logits, their float32 copy and gradients of a batch take up to 12 bytes · B · T · V: 7 GiB for
GPT-2's 50,257 tokens and 12 rows of 1,024. Here the output layer and the loss are computed for a
chunk of tokens at a time, and again in the backward pass (Chen et al. 2016).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def chunked_cross_entropy(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    targets: Tensor,
    chunk_size: int,
    ignore_index: int = -100,
) -> Tensor:
    """Return the cross-entropy of `head(hidden)` in float32, summed over the targets, a scalar.

    Args:
        head: The output layer, (N, D) to (N, V).
        hidden: (B, T, D).
        targets: (B, T), int64.
        chunk_size: Number of tokens whose logits are computed at a time.
        ignore_index: Target that is excluded from the loss.
    """

    def loss(x: Tensor, y: Tensor) -> Tensor:
        logits = head(x).float()  # (N, V)
        return F.cross_entropy(logits, y, ignore_index=ignore_index, reduction="sum")

    total = hidden.new_zeros((), dtype=torch.float32)
    hidden, targets = hidden.flatten(0, 1), targets.flatten()  # (N, D), (N,)
    if not torch.compiler.is_compiling():  # compiled, each number of targets would be recompiled
        used = targets != ignore_index  # (N,)
        hidden, targets = hidden[used], targets[used]
    for x, y in zip(hidden.split(chunk_size), targets.split(chunk_size), strict=True):
        total = total + checkpoint(loss, x, y, use_reentrant=False, preserve_rng_state=False)
    return total
