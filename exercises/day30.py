"""Day 30: project 3: memory of the cache, scaling laws, evaluation with long contexts."""

import numpy as np


def cache_bytes(
    layers: int, kv_heads: int, head_width: int, context: int, batch_size: int, bytes_each: int = 2
) -> int:
    """Return the memory of the cached keys and values of a language model.

    Compare GPT-2 (12 layers, 12 heads of 64) and a model with grouped queries.

    Args:
        layers: Number of blocks.
        kv_heads: Heads of keys and values; fewer than query heads with grouped queries.
        head_width: Width of a head.
        context: Cached positions.
        batch_size: Sequences.
        bytes_each: Bytes of a number.

    Source: Shazeer 2019 (arXiv:1911.02150); Ainslie et al. 2023 (arXiv:2305.13245).
    """
    raise NotImplementedError


def fit_power_law(sizes: np.ndarray, losses: np.ndarray) -> tuple[float, float]:
    """Return a and b of loss = a · size^-b by least squares of the logarithms.

    Args:
        sizes: Such as parameters or tokens, (N,).
        losses: Validation losses, (N,).

    Source: Kaplan et al. 2020 (arXiv:2001.08361), section 1.2.
    """
    raise NotImplementedError


def scored_windows(length: int, context: int, stride: int) -> list[tuple[int, int, int]]:
    """Return windows (begin, end, first scored position) to evaluate a text with long contexts.

    Windows hold at most `context` tokens and begin `stride` tokens after each other, from 0; each
    token is scored once, in the first window that contains it. The last window ends with the text.
    A token of position p > 0 thus has at least min(p, context - stride) tokens before it.

    Args:
        length: Tokens of the text.
        context: Positions of the model.
        stride: Tokens between windows, 1 <= stride <= context.

    Source: Hugging Face, "Perplexity of fixed-length models".
    """
    raise NotImplementedError
