"""Day 28: minGPT on Shakespeare: characters, an honest validation loss, early stopping."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class CharacterTokenizer:
    """Ids of the characters of a text, in the order of their code points.

    Args:
        text: The training text.
    """

    def __init__(self, text: str) -> None:
        raise NotImplementedError

    def encode(self, text: str) -> list[int]:
        """Return the id of each character.

        Raises:
            ValueError: If a character is not in the training text; the message contains it.
        """
        raise NotImplementedError

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids."""
        raise NotImplementedError


def validation_loss(net: nn.Module, tokens: Tensor, context: int) -> float:
    """Return the mean loss of predicting every token of a text but the first.

    Cut the text into windows of `context` inputs that do not overlap; the last one may be shorter.
    Evaluation mode, no gradients; afterwards the network is in the mode that it had before.

    Args:
        net: Returns logits (B, T, V) of tokens (B, T), T <= context.
        tokens: A text, (N,), N >= 2.
        context: Number of positions of the network.
    """
    raise NotImplementedError


def early_stopping(losses: list[float], patience: int, min_delta: float = 0.0) -> tuple[int, int]:
    """Return the epoch at which training stops and the epoch with the best loss, both from 0.

    An epoch improves if its loss is below the best one so far by more than min_delta; training
    stops after `patience` epochs in a row without improvement, or at the last epoch. The best epoch
    is the last one that improved.

    Args:
        losses: Validation loss of each epoch.
        patience: Number of epochs without improvement.
        min_delta: Smallest improvement that counts.

    Source: Prechelt 1998, Early stopping – but when?
    """
    raise NotImplementedError
