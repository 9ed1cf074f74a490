"""Day 26: BERT: sentence pairs, masked tokens and the loss."""

import torch
from torch import Tensor


def encode_pair(
    first: list[int], second: list[int], cls: int, sep: int, max_length: int
) -> tuple[list[int], list[int]]:
    """Return tokens and segments of "[CLS] first [SEP] second [SEP]".

    If the result is too long, remove tokens one by one from the end of the longer sentence, from
    the second if both are equally long. Segment 0 reaches to the first [SEP], which it contains.

    Args:
        first: Tokens of the first sentence.
        second: Tokens of the second sentence.
        cls: Id of [CLS].
        sep: Id of [SEP].
        max_length: Most tokens of the result, at least 3.

    Returns:
        Tokens and segments (0 or 1), equally long.

    Source: Devlin et al. 2019 (arXiv:1810.04805), figure 2.
    """
    raise NotImplementedError


def mask_tokens(
    tokens: Tensor, special: Tensor, mask_id: int, vocab_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of masked language modelling.

    Each token that is not special is chosen with probability 15 %. Of the chosen ones 80 % become
    mask_id, 10 % a random token of the vocabulary, and 10 % stay. Targets are the original tokens
    at the chosen positions and -100 elsewhere.

    Args:
        tokens: Tokens, (B, T); unchanged.
        special: Booleans (B, T), True for [CLS], [SEP] and padding.
        mask_id: Id of [MASK].
        vocab_size: Number of tokens.
        generator: Source of random numbers.

    Returns:
        Inputs and targets, (B, T) each.

    Source: Devlin et al. 2019, section 3.1 and appendix A.1.
    """
    raise NotImplementedError


def masked_loss(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy at the chosen positions.

    Compute logits at these positions only: the logits of all positions would be the largest tensor
    of the training step. Without a chosen position the loss is 0.

    Args:
        hidden: Outputs of the encoder, (B, T, D).
        weight: Weight of the output layer, (V, D).
        bias: Its bias, (V,).
        targets: Tokens, -100 where there is nothing to predict, (B, T).
    """
    raise NotImplementedError
