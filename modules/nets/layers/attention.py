"""What every Transformer here shares: masks, the attention function and the key/value cache."""

import torch
from torch import Tensor
from torch.nn import functional as F

from modules.nets.layers.dropout import Dropout


def causal_mask(start: int, length: int, device: torch.device) -> Tensor:
    """Return the additive mask of positions start … start + length - 1: -inf on later positions."""
    blocked = torch.full((length, start + length), float("-inf"), device=device)
    return blocked.triu(start + 1)  # (T, S)


def document_mask(documents: Tensor) -> Tensor:
    """Return the additive mask of packed samples: -inf on later positions and other documents.

    Args:
        documents: Number of the document of each token, (B, T).

    Returns:
        (B, 1, T, T).
    """
    other = documents[:, :, None] != documents[:, None, :]  # (B, T, T)
    mask = torch.zeros(other.shape, device=documents.device).masked_fill(other, float("-inf"))
    return (mask + causal_mask(0, documents.shape[1], documents.device))[:, None]


def document_positions(documents: Tensor) -> Tensor:
    """Return the position of each token in its document, (B, T), for documents as above."""
    index = torch.arange(documents.shape[1], device=documents.device)  # (T,)
    first = documents.diff(dim=1, prepend=documents[:, :1] - 1) != 0  # (B, T)
    return index - torch.where(first, index, 0).cummax(dim=1).values


def padding_mask(mask: Tensor) -> Tensor:
    """Return the additive mask of an attention mask (B, S): -inf on padding, (B, 1, 1, S)."""
    blocked = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, float("-inf"))
    return blocked[:, None, None, :]


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    dropout: Dropout,
    implementation: str = "auto",
    is_causal: bool = False,
) -> Tensor:
    """Scaled dot-product attention, softmax(q kᵀ / √K + mask) v (Vaswani et al. 2017, eq. 1).

    Args:
        q: Queries (B, H, T, K).
        k: Keys (B, H, S, K).
        v: Values (B, H, S, K).
        mask: Additive mask that broadcasts to (B, H, T, S); None masks nothing.
        dropout: Applied to the attention weights.
        implementation: "sdpa" (PyTorch's fused kernel), "eager", or "auto": the faster one.
        is_causal: Whether a mask (T, S) is the causal one, which the fused kernel does not need to
            read.
    """
    if implementation == "auto" and q.device.type == "cpu":
        # On CPUs SDPA is faster in fp32 (forward and backward of 12 × 6 heads × 256 tokens: 23 ms
        # against 28) and slower in bf16 (20 ms against 11) except for a single token; its dropout
        # is slow in both.
        bf16 = q.dtype == torch.bfloat16 and q.shape[2] > 1
        implementation = "eager" if bf16 or dropout.active else "sdpa"
    if implementation == "eager":
        return eager_attention(q, k, v, mask, dropout)  # (B, H, T, K)
    p = dropout.p if dropout.active else 0.0
    one_mask = mask is None or mask.dim() == 2
    if is_causal and one_mask and q.shape[2] == k.shape[2]:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
    mask = None if mask is None else mask.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, mask, dropout_p=p)  # (B, H, T, K)


def eager_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: Dropout
) -> Tensor:
    """The same as a sequence of torch operations; arguments as of `attention`."""
    B, H, _, K = q.shape
    q, k, v = (part.flatten(0, 1) for part in (q, k, v))  # (BH, T, K), (BH, S, K), (BH, S, K)
    if mask is None:
        scores = (q * K**-0.5) @ k.mT  # (BH, T, S)
    else:  # baddbmm adds the mask while it computes the scores
        if mask.dim() == 4:  # one mask per sample
            mask = mask.expand(B, H, -1, -1).flatten(0, 1)  # (BH, 1, S)
        scores = torch.baddbmm(mask.to(q.dtype), q, k.mT, alpha=K**-0.5)  # (BH, T, S)
    weights = dropout(scores.softmax(dim=-1))  # (BH, T, S)
    return (weights @ v).unflatten(0, (B, H))  # (B, H, T, K)


class KeyValueCache:
    """Keys and values of one layer for the tokens processed so far.

    Args:
        capacity: Number of tokens to allocate memory for.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self.keys: Tensor | None = None  # allocated on first use, when shape and dtype are known
        self.values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values (B, G, T, K) of T new tokens; return those of all S so far."""
        if self.keys is None or self.values is None:
            B, G, _, K = keys.shape
            self.keys = keys.new_empty(B, G, self.capacity, K)
            self.values = values.new_empty(B, G, self.capacity, K)
        new = keys.shape[2]
        self.keys.narrow(2, self.length, new).copy_(keys)
        self.values.narrow(2, self.length, new).copy_(values)
        self.length += new
        return (
            self.keys.narrow(2, 0, self.length),  # (B, G, S, K)
            self.values.narrow(2, 0, self.length),  # (B, G, S, K)
        )

    def reorder(self, rows: Tensor) -> "KeyValueCache":
        """Return the cache of the given batch rows, which beam search selects and repeats."""
        selected = KeyValueCache(self.capacity)
        if self.keys is not None and self.values is not None:
            selected.append(
                self.keys[:, :, : self.length].index_select(0, rows),
                self.values[:, :, : self.length].index_select(0, rows),
            )
        return selected
