"""Day 15: sequence to sequence: loss, greedy decoding and beam search."""

from collections.abc import Callable

import torch
from torch import Tensor

NextLogProbs = Callable[[list[int]], list[float]]


def sequence_loss(logits: Tensor, targets: Tensor, pad: int) -> Tensor:
    """Return the mean cross-entropy of the tokens that are not padding.

    Args:
        logits: Decoder outputs, (B, T, V).
        targets: Tokens, (B, T), padded at the end.
        pad: Token of padding.

    Source: Sutskever, Vinyals & Le 2014 (arXiv:1409.3215).
    """
    raise NotImplementedError


def greedy_decode(next_log_probs: NextLogProbs, eos: int, max_length: int) -> list[int]:
    """Return the tokens that are the most probable ones step by step.

    Args:
        next_log_probs: Returns the log-probabilities of all tokens after a prefix; the prefix of
            the first token is [].
        eos: Token that ends a sequence; it is not part of the result.
        max_length: Most tokens of the result.
    """
    raise NotImplementedError


def beam_search(
    next_log_probs: NextLogProbs, eos: int, max_length: int, beam_size: int, alpha: float = 0.0
) -> list[int]:
    """Return the sequence with the highest score found by beam search.

    In each step extend all open hypotheses by all tokens and keep the `beam_size` extensions with
    the highest log-probability; those that end with eos are finished and leave the beam. Stop when
    none is open, or after max_length tokens, where open hypotheses count as finished. The score of
    a finished one is its log-probability (with that of eos) divided by length^alpha; the length
    counts its tokens, eos included.

    Args:
        next_log_probs: Returns the log-probabilities of all tokens after a prefix.
        eos: Token that ends a sequence; it is not part of the result.
        max_length: Most tokens, eos included.
        beam_size: Number of hypotheses that are kept in each step.
        alpha: Exponent of the length; 0 prefers short sequences.

    Source: Wu et al. 2016 (arXiv:1609.08144), section 7, with a simpler penalty.
    """
    raise NotImplementedError
