"""What every Transformer here shares: masks, the attention function and the key/value cache."""

from collections.abc import Sequence

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

    Rows of different lengths end in the same column; `padding` is the number of columns before
    each row that are not used, None if there are none.

    Args:
        capacity: Largest number of tokens.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self.padding: list[int] | None = None
        self.keys: Tensor | None = None  # allocated on first use, when shape and dtype are known
        self.values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values (B, G, T, K) of T new tokens; return those of all S so far."""
        used = self.length + keys.shape[2]
        self.keys, self.values = self._store(self.keys, keys), self._store(self.values, values)
        self.length = used
        return self.keys.narrow(2, 0, used), self.values.narrow(2, 0, used)  # (B, G, S, K), twice

    def _store(self, stored: Tensor | None, new: Tensor) -> Tensor:
        """Return the memory with new columns; it doubles when it is full."""
        used = self.length + new.shape[2]
        if stored is None or used > stored.shape[2]:
            B, G, _, K = new.shape
            larger = new.new_empty(B, G, min(self.capacity, max(64, 2 * used)), K)
            if stored is not None:
                larger.narrow(2, 0, self.length).copy_(stored.narrow(2, 0, self.length))
            stored = larger
        stored.narrow(2, self.length, new.shape[2]).copy_(new)
        return stored

    def truncate(self, length: int) -> None:
        """Remove the tokens from this column on."""
        self.length = min(self.length, length)

    def reorder(self, rows: Tensor) -> "KeyValueCache":
        """Return the cache of the given batch rows, which may be repeated; memory is copied."""
        selected = KeyValueCache(self.capacity)
        if self.keys is None or self.values is None:
            return selected
        first = 0
        if self.padding is not None:
            padding = [self.padding[row] for row in rows.tolist()]
            first = min(padding)
            selected.padding = _unless_zero([columns - first for columns in padding])
        selected.append(
            self.keys[:, :, first : self.length].index_select(0, rows),
            self.values[:, :, first : self.length].index_select(0, rows),
        )
        return selected

    @staticmethod
    def join(caches: "Sequence[KeyValueCache]") -> "KeyValueCache":
        """Return one cache with the rows of several, of the same layer."""
        joined = KeyValueCache(caches[0].capacity)
        length = max(cache.length for cache in caches)
        keys, values, padding = [], [], []
        for cache in caches:
            assert cache.keys is not None
            assert cache.values is not None
            columns = length - cache.length
            own = cache.padding or [0] * len(cache.keys)
            padding += [columns + unused for unused in own]
            # Zeros, since attention multiplies what it masks by 0.
            keys.append(F.pad(cache.keys[:, :, : cache.length], (0, 0, columns, 0)))
            values.append(F.pad(cache.values[:, :, : cache.length], (0, 0, columns, 0)))
        joined.append(torch.cat(keys), torch.cat(values))
        joined.padding = _unless_zero(padding)
        return joined


def _unless_zero(padding: list[int]) -> list[int] | None:
    return padding if any(padding) else None


def left_padding_mask(padding: Tensor, start: int, length: int) -> Tensor:
    """Return the additive mask of positions start … start + length - 1 of a cache with padding.

    Args:
        padding: Number of columns before each row that are not used, (B,).
        start: Number of earlier columns.
        length: Number of new tokens.

    Returns:
        (B, 1, T, S): -inf on later columns and on padding.
    """
    columns = torch.arange(start + length, device=padding.device)  # (S,)
    unused = columns < padding[:, None]  # (B, S)
    mask = causal_mask(start, length, padding.device)  # (T, S)
    return mask.expand(len(padding), 1, -1, -1).masked_fill(unused[:, None, None], float("-inf"))
