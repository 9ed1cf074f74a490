"""The cache of a causal language model of transformers, for texts of different lengths.

Rows of different lengths end in the same column; the columns before a row are not used.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass
class CacheState:
    """A cache, and where its rows begin.

    Args:
        cache: DynamicCache of transformers.
        padding: Number of columns before each row that are not used, (B,); None if there are none.
    """

    cache: Any
    padding: Tensor | None = None

    @property
    def length(self) -> int:
        """Number of columns."""
        length: int = self.cache.get_seq_length()
        return length

    def inputs(self, tokens: Tensor) -> dict[str, Tensor]:
        """Return the attention mask and the positions of tokens (B, T) that follow."""
        if self.padding is None:
            return {}
        columns = torch.arange(self.length + tokens.shape[1], device=tokens.device)  # (S,)
        mask = columns >= self.padding[:, None]  # (B, S)
        positions = columns[self.length :] - self.padding[:, None]  # (B, T)
        return {"attention_mask": mask.long(), "position_ids": positions}

    def select(self, rows: Tensor) -> "CacheState":
        """Return a copy with the given batch rows, which may be repeated."""
        cache = copy.deepcopy(self.cache)
        cache.batch_select_indices(rows)
        if self.padding is None:
            return CacheState(cache)
        padding = self.padding[rows]
        unused = int(padding.min())
        for layer in cache.layers:
            _set_length(layer, self.length - unused)
        return CacheState(cache, padding - unused if padding.any() else None)


def can_be_joined(cache: Any) -> bool:
    """Return whether all layers of a cache hold only keys and values, unlike linear attention."""
    from transformers import cache_utils

    known = (cache_utils.DynamicLayer, cache_utils.DynamicSlidingWindowLayer)
    return all(type(layer) in known for layer in cache.layers)


def join_states(states: Sequence[CacheState]) -> CacheState:
    """Return one state with the rows of several, which may have different lengths."""
    length = max(state.length for state in states)
    padding = []
    for state in states:
        keys = next(layer.keys for layer in state.cache.layers if layer.keys is not None)
        own = torch.zeros(len(keys), dtype=torch.long, device=keys.device)
        padding.append(length - state.length + (own if state.padding is None else state.padding))
        for layer in state.cache.layers:
            _set_length(layer, length)
    cache = states[0].cache
    for layer, *others in zip(*(state.cache.layers for state in states), strict=True):
        if layer.keys is not None:
            layer.keys = torch.cat([layer.keys, *(other.keys for other in others)])
            layer.values = torch.cat([layer.values, *(other.values for other in others)])
    joined = torch.cat(padding)
    return CacheState(cache, joined if joined.any() else None)


def _set_length(layer: Any, length: int) -> None:
    """Remove columns before those of a layer, or add some; a sliding layer holds the last ones."""
    if layer.keys is None:  # it uses the keys and values of another layer
        return
    held = length
    if layer.is_sliding:
        held = min(length, layer.sliding_window - 1)
        layer.cumulative_length = length
    more = held - layer.keys.shape[2]
    layer.keys = F.pad(layer.keys, (0, 0, more, 0))  # zeros: attention multiplies them by 0
    layer.values = F.pad(layer.values, (0, 0, more, 0))
