"""A recurrent net that reads a text from both ends and then says what it is.

Schuster & Paliwal 1997, "Bidirectional recurrent neural networks", with the cells of rnn.py. A CNN
sees a few words at once, however far the others are. New here: a state is carried over the whole
text, once in each direction, so that every word is read in the light of all others.

Texts of a batch have different lengths. PyTorch's packed sequences leave the padding out, but on a
CPU they cost two to eight times the plain kernels. The same result without them: going forward,
padding comes after the text and can't be seen; for the way back each text is turned around within
its own length, so that padding comes after it again.
"""

import torch
from torch import Tensor, nn

from modules.nets.layers.dropout import Dropout
from modules.nets.layers.pooling import last_token, masked_max, masked_mean
from modules.nets.rnn import RecurrentEncoder

POOLINGS = ("last", "max", "mean")


def reverse_sequences(x: Tensor, mask: Tensor) -> Tensor:
    """Each text (B, T, D) with its last word first; what is padding stays where it is."""
    place = torch.arange(x.shape[1], device=x.device)  # (T,)
    opposite = mask.sum(dim=1, keepdim=True) - 1 - place  # (B, T)
    index = torch.where(opposite >= 0, opposite, place)  # (B, T)
    return x.gather(1, index.unsqueeze(-1).expand_as(x))  # (B, T, D)


class TextEncoder(nn.Module):
    """Token vectors, then recurrent layers that read in one direction or in both.

    Args:
        vocab_size: number of different tokens.
        cell: "rnn", "lstm" or "gru".
        dim: width of a token's vector.
        hidden_size: width of the state of each direction.
        num_layers: how many layers, each reading the one below.
        dropout: probability of dropping an element of the token vectors and between layers.
        bidirectional: read in both directions, not only forward.
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
        """Tokens and mask (B, T) to what is known at each token, (B, T, output_size)."""
        x = self.embedding(tokens)  # (B, T, dim)
        for number, forwards in enumerate(self.forwards):
            x = self.drop(x)
            read, _ = forwards(x)  # (B, T, D)
            if self.backwards:
                back, _ = self.backwards[number](reverse_sequences(x, mask))  # (B, T, D)
                read = torch.cat([read, reverse_sequences(back, mask)], dim=-1)  # (B, T, 2D)
            x = read
        return x

    def ends(self, x: Tensor, mask: Tensor) -> Tensor:
        """What each direction knows once it has read the whole text, (B, output_size)."""
        forwards = last_token(x[..., : self.hidden_size], mask)  # (B, D)
        return torch.cat([forwards, x[:, 0, self.hidden_size :]], dim=-1)  # (B, D or 2D)


class TextRNN(nn.Module):
    """Recurrent layers over the words, one vector of the text, one linear layer.

    Args:
        num_classes: number of classes.
        vocab_size: number of different tokens.
        cell: "rnn", "lstm" or "gru".
        dim: width of a token's vector.
        hidden_size: width of the state of each direction.
        num_layers: how many recurrent layers.
        dropout: probability of dropping an element of the token vectors, between the layers and
            before the last one.
        bidirectional: read in both directions, not only forward.
        pooling: the text's vector: the "last" states, or the "max" or "mean" over all words.
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
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, not {pooling!r}")
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
