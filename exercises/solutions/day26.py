"""Solutions of day 26."""

import torch
import torch.nn.functional as F
from torch import Tensor


def encode_pair(
    first: list[int], second: list[int], cls: int, sep: int, max_length: int
) -> tuple[list[int], list[int]]:
    a, b = len(first), len(second)
    while a + b + 3 > max_length:
        if a > b:
            a -= 1
        else:
            b -= 1
    tokens = [cls, *first[:a], sep, *second[:b], sep]
    return tokens, [0] * (a + 2) + [1] * (b + 1)


def mask_tokens(
    tokens: Tensor, special: Tensor, mask_id: int, vocab_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    chosen = (torch.rand(tokens.shape, generator=generator) < 0.15) & ~special
    kind = torch.rand(tokens.shape, generator=generator)
    random_tokens = torch.randint(vocab_size, tokens.shape, generator=generator)
    inputs = torch.where(chosen & (kind < 0.8), mask_id, tokens)
    inputs = torch.where(chosen & (kind >= 0.9), random_tokens, inputs)
    return inputs, torch.where(chosen, tokens, -100)


def masked_loss(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    chosen = targets != -100
    logits = hidden[chosen] @ weight.T + bias  # (chosen positions, V)
    return F.cross_entropy(logits, targets[chosen], reduction="sum") / max(1, int(chosen.sum()))
