"""Solutions of day 17."""

from torch import Tensor


def self_attention(x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor) -> Tensor:
    query, key, value = x @ w_q, x @ w_k, x @ w_v
    scores = query @ key.transpose(1, 2) / key.shape[-1] ** 0.5  # (B, T, T)
    return scores.softmax(dim=-1) @ value


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    batch, length, width = x.shape
    if width % num_heads:
        raise ValueError(f"{num_heads} heads do not divide the width {width}")
    return x.reshape(batch, length, num_heads, width // num_heads).transpose(1, 2)


def attention_costs(length: int, width: int, num_heads: int) -> tuple[int, int, int]:
    return 4 * length * width**2, 2 * length**2 * width, num_heads * length**2


def noam_learning_rate(step: int, width: int, warmup: int) -> float:
    step = max(step, 1)
    return width**-0.5 * min(step**-0.5, step * warmup**-1.5)
