"""Day 24: the parts of a GPT: size, GELU, cached attention, loss and sampling."""

import torch
from torch import Tensor


def gpt_parameters(
    vocab_size: int, context: int, width: int, layers: int, tied: bool = True
) -> int:
    """Return the number of parameters of GPT-2, which is 124,439,808 for its smallest size.

    Token and position embeddings; in each block two layer norms, attention (4 D² and biases) and a
    feed-forward network of width 4 D with biases; a last layer norm; an output layer without bias,
    which shares the token embedding if `tied`.

    Args:
        vocab_size: Number of tokens.
        context: Number of positions.
        width: Width D.
        layers: Number of blocks.
        tied: Whether output layer and token embedding share their weight.

    Source: Radford et al. 2019, Language models are unsupervised multitask learners.
    """
    raise NotImplementedError


def gelu(x: Tensor) -> Tensor:
    """Return GELU in the approximation that GPT-2 uses.

        0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))

    Args:
        x: Tensor of any shape.

    Source: Hendrycks & Gimpel 2016 (arXiv:1606.08415).
    """
    raise NotImplementedError


def cached_attention(
    query: Tensor, key: Tensor, value: Tensor, cache: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return causal attention of new positions to themselves and to cached ones, and the new cache.

    The result must equal the same rows of attention over the whole sequence, whether the positions
    come one by one or several at a time.

    Args:
        query: Queries of the new positions, (B, H, T, D).
        key: Their keys, (B, H, T, D).
        value: Their values, (B, H, T, D).
        cache: Keys and values of all earlier positions, (B, H, S, D) each; None at the start.

    Returns:
        Output (B, H, T, D), and keys and values of all positions, (B, H, S + T, D) each.

    Source: Shazeer 2019 (arXiv:1911.02150), section 2.4.
    """
    raise NotImplementedError


def language_model_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the mean cross-entropy of predicting each token from those before it.

    The logits at position t are the prediction of token t + 1; the last logits have no target.

    Args:
        logits: Outputs of a decoder for `tokens`, (B, T, V).
        tokens: Tokens, (B, T).
    """
    raise NotImplementedError


def next_token_probabilities(logits: Tensor, temperature: float, top_k: int) -> Tensor:
    """Return the probabilities from which the next token is sampled.

    Divide by the temperature; keep the top_k largest logits; normalize. Temperature 0 is the limit:
    probability 1 for the largest logit.

    Args:
        logits: Tensor of shape (B, V).
        temperature: Temperature, >= 0.
        top_k: Number of tokens that may be sampled; at most V are kept.

    Returns:
        Tensor of shape (B, V).

    Source: Fan, Lewis & Dauphin 2018 (arXiv:1805.04833), section 5.
    """
    raise NotImplementedError
