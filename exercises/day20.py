"""Day 20: project 2: a character RNN with states, nucleus sampling and generation."""

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]


class CharacterLSTM(nn.Module):
    """Embedding, LSTM and output layer; the states can be carried from batch to batch.

    Args:
        vocab_size: Number of characters V.
        width: Width of the embedding and of the LSTM.
        layers: Layers of the LSTM.
    """

    def __init__(self, vocab_size: int, width: int = 32, layers: int = 1) -> None:
        raise NotImplementedError

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return logits (B, T, V) of tokens (B, T), and the state after them.

        The state is detached: truncated back-propagation ends at the beginning of a batch. A text
        in two pieces gives the same logits as in one.
        """
        raise NotImplementedError


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Return the distribution of nucleus sampling.

    Keep the smallest set of most probable tokens whose probabilities add up to at least top_p, and
    normalize. The most probable token is always kept.

    Args:
        probabilities: Tensor of shape (B, V).
        top_p: Number in (0, 1].

    Source: Holtzman et al. 2020 (arXiv:1904.09751), section 3.1.
    """
    raise NotImplementedError


def generate(net: nn.Module, prompt: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Return `length` sampled tokens after a prompt.

    The prompt is processed at once; after that each step passes one token and the state. Without
    gradients, with the network in evaluation mode.

    Args:
        net: Returns (logits (1, T, V), state) of (tokens (1, T), state).
        prompt: Tokens of shape (T,), T >= 1.
        length: Number of new tokens.
        generator: For torch.multinomial.

    Returns:
        New tokens, (length,).
    """
    raise NotImplementedError
