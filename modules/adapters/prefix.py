"""Trained keys and values before those of the tokens, in every self-attention layer."""

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PrefixedCache:
    """A key/value cache, or none, whose keys and values come after those of the prefix.

    Args:
        attention: The layer with `prefix_keys` and `prefix_values`, both (G, P, K).
        cache: Its cache of earlier tokens.
    """

    def __init__(self, attention: Any, cache: Any) -> None:
        self.attention = attention
        self.cache = cache

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the prefix and all tokens so far, both (B, G, P + S, K)."""
        if self.cache is not None:
            keys, values = self.cache.append(keys, values)
        before = self.attention.prefix_keys, self.attention.prefix_values
        return _concatenate(before[0], keys), _concatenate(before[1], values)


def _concatenate(prefix: Tensor, part: Tensor) -> Tensor:
    return torch.cat([prefix.to(part.dtype).expand(len(part), -1, -1, -1), part], dim=2)


def add_prefix(attention: Any, length: int) -> None:
    """Let all tokens of a SelfAttention attend to `length` trained keys and values."""
    size = (attention.num_kv_heads, length, attention.head_dim)
    weight: Tensor = attention.qkv.weight
    for name in ("prefix_keys", "prefix_values"):
        parameter = nn.Parameter(weight.new_empty(size).normal_(std=0.02))
        attention.register_parameter(name, parameter)
    attention.prefix_hook = attention.register_forward_pre_hook(_attend_to_prefix, with_kwargs=True)


def remove_prefix(attention: Any) -> None:
    """Undo `add_prefix`."""
    attention.prefix_hook.remove()
    del attention.prefix_hook, attention.prefix_keys, attention.prefix_values


def _attend_to_prefix(attention: Any, args: Any, kwargs: Any) -> tuple[tuple, dict[str, Any]]:
    given = signature(attention.forward).bind(*args, **kwargs).arguments
    given["cache"] = PrefixedCache(attention, given.get("cache"))
    if given.get("mask") is not None:  # additive: zero on the prefix, which is never masked
        given["mask"] = F.pad(given["mask"], (attention.prefix_keys.shape[1], 0))
    return (), given
