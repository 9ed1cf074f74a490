"""Solutions of day 24."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def gpt_parameters(
    vocab_size: int, context: int, width: int, layers: int, tied: bool = True
) -> int:
    attention = 4 * width * width + 4 * width
    feed_forward = 8 * width * width + 5 * width
    block = attention + feed_forward + 4 * width
    output = 0 if tied else vocab_size * width
    return (vocab_size + context) * width + layers * block + 2 * width + output


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def cached_attention(
    query: Tensor, key: Tensor, value: Tensor, cache: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    if cache is not None:
        key, value = torch.cat([cache[0], key], dim=2), torch.cat([cache[1], value], dim=2)
    new, total = query.shape[2], key.shape[2]
    allowed = torch.ones(new, total, dtype=torch.bool, device=query.device).tril(total - new)
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
    weights = scores.masked_fill(~allowed, float("-inf")).softmax(dim=-1)
    return weights @ value, (key, value)


def language_model_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def next_token_probabilities(logits: Tensor, temperature: float, top_k: int) -> Tensor:
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    best, indices = logits.topk(min(top_k, logits.shape[-1]), dim=-1)
    kept = torch.full_like(logits, float("-inf")).scatter(-1, indices, best / temperature)
    return kept.softmax(dim=-1)
