"""Text RNN: a bidirectional recurrent encoder for text classification.

Schuster & Paliwal 1997, "Bidirectional recurrent neural networks", with the cells of rnn.py. The
receptive field of a CNN is a few tokens. New here: a state is carried over the whole text in each
direction, so that the output at every token depends on all others.

Texts of a batch differ in length. PyTorch's packed sequences skip the padding, but take two to
eight times as long as the plain kernels on CPUs. The same result without them: in the forward
direction padding follows the text and cannot affect it; for the backward direction each text is
reversed within its own length, so that padding follows it again.
"""

import torch
from torch import Tensor, nn

from modules.nets.layers.dropout import Dropout
from modules.nets.layers.pooling import last_token, masked_max, masked_mean
from modules.nets.rnn import RecurrentEncoder

POOLINGS = ("last", "max", "mean")


def reverse_sequences(x: Tensor, mask: Tensor) -> Tensor:
    """Reverse each text (B, T, D) within its length; padding stays in place."""
    position = torch.arange(x.shape[1], device=x.device)  # (T,)
    reverse = mask.sum(dim=1, keepdim=True) - 1 - position  # (B, T)
    index = torch.where(reverse >= 0, reverse, position)  # (B, T)
    return x.gather(1, index.unsqueeze(-1).expand_as(x))  # (B, T, D)


class TextEncoder(nn.Module):
    """Token embeddings, then uni- or bidirectional recurrent layers.

    Args:
        vocab_size: Number of tokens in the vocabulary.
        cell: "rnn", "lstm" or "gru".
        dim: Width of the token embeddings.
        hidden_size: Width of the state of each direction.
        num_layers: Number of recurrent layers.
        dropout: Dropout probability of embeddings and between layers.
        bidirectional: Use both directions instead of the forward one only.
    """

    def __init__(
        self,
        vocab_size: int,
        cell: str,
        dim: int,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        bidirectional: bool,
    ) -> None:
        super().__init__()
        self.output_size = hidden_size * (2 if bidirectional else 1)
        self.hidden_size = hidden_size
        self.embedding = nn.Embedding(vocab_size, dim)
        self.drop = Dropout(dropout)
        widths = [dim] + [self.output_size] * (num_layers - 1)
        self.forwards = nn.ModuleList(RecurrentEncoder(w, hidden_size, cell) for w in widths)
        self.backwards = nn.ModuleList(
            RecurrentEncoder(w, hidden_size, cell) for w in widths if bidirectional
        )
        nn.init.normal_(self.embedding.weight, std=0.25)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Encode tokens (B, T) with mask (B, T) to (B, T, output_size)."""
        x = self.embedding(tokens)  # (B, T, dim)
        for number, forwards in enumerate(self.forwards):
            x = self.drop(x)
            outputs, _ = forwards(x)  # (B, T, D)
            if self.backwards:
                reverse, _ = self.backwards[number](reverse_sequences(x, mask))  # (B, T, D)
                outputs = torch.cat([outputs, reverse_sequences(reverse, mask)], dim=-1)
            x = outputs  # (B, T, D or 2D)
        return x

    def ends(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the final output of each direction, (B, output_size)."""
        forwards = last_token(x[..., : self.hidden_size], mask)  # (B, D)
        return torch.cat([forwards, x[:, 0, self.hidden_size :]], dim=-1)  # (B, D or 2D)


class TextRNN(nn.Module):
    """Recurrent layers, pooling over the tokens, one linear layer.

    Args:
        num_classes: Number of logits.
        vocab_size: Number of tokens in the vocabulary.
        cell: "rnn", "lstm" or "gru".
        dim: Width of the token embeddings.
        hidden_size: Width of the state of each direction.
        num_layers: Number of recurrent layers.
        dropout: Dropout probability of embeddings, between recurrent layers and before the linear
            layer.
        bidirectional: Use both directions instead of the forward one only.
        pooling: How tokens become one text vector: "last" states, or "max" or "mean" over tokens.
    """

    def __init__(
        self,
        num_classes: int,
        vocab_size: int,
        cell: str = "lstm",
        dim: int = 128,
        hidden_size: int = 128,
        num_layers: int = 1,
        dropout: float = 0.5,
        bidirectional: bool = True,
        pooling: str = "last",
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
        self.num_classes = num_classes
        self.vocab_size = vocab_size
        self.cell = cell
        self.dim = dim
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.pooling = pooling
        self.encoder = TextEncoder(
            vocab_size, cell, dim, hidden_size, num_layers, dropout, bidirectional
        )
        self.drop = Dropout(dropout)
        self.head = nn.Linear(self.encoder.output_size, num_classes)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens, mask = inputs["input_ids"], inputs["attention_mask"].bool()  # (B, T), (B, T)
        x = self.encoder(tokens, mask)  # (B, T, D)
        pool = {"last": self.encoder.ends, "max": masked_max, "mean": masked_mean}[self.pooling]
        return self.head(self.drop(pool(x, mask)))  # (B, num_classes)
