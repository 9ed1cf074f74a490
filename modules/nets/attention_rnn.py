"""A recurrent net that weighs the words: additive attention over what it read.

Bahdanau, Cho & Bengio 2015, "Neural machine translation by jointly learning to align and
translate", equation for e_ij; over a single text Yang et al. 2016, "Hierarchical attention networks
for document classification". The last state must hold the whole text, and early words fade. New
here: the text's vector is a weighted mean over all words, the weights are learned, and one can look
at them: which words decided?
"""

import torch
from torch import Tensor, nn

from modules.nets.layers.dropout import Dropout
from modules.nets.text_rnn import TextEncoder


class AdditiveAttention(nn.Module):
    """One weight a token: how much it says about the text.

    Args:
        dim: width of what is weighed.
        hidden_size: width of the layer that judges it.
    """

    def __init__(self, dim: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, hidden_size)
        self.score = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) and a mask (B, T) to weights (B, T): 0 or more, 1 in sum, 0 on padding."""
        # e_t = v · tanh(W x_t + b)        α = softmax(e)
        return self.weigh(self.hidden(x), mask)  # (B, T)

    def weigh(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """The weights, from what the hidden layer has before its tanh, (B, T, hidden_size)."""
        scores = self.score(torch.tanh(hidden)).squeeze(-1)  # (B, T)
        return scores.float().masked_fill(~mask, float("-inf")).softmax(dim=-1)  # (B, T)


class AttentionRNN(nn.Module):
    """Recurrent layers over the words, their weighted mean, one linear layer.

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
        attention_size: width of the layer that judges the words.
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
        attention_size: int = 64,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.vocab_size = vocab_size
        self.cell = cell
        self.dim = dim
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.attention_size = attention_size
        self.encoder = TextEncoder(
            vocab_size, cell, dim, hidden_size, num_layers, dropout, bidirectional
        )
        self.attention = AdditiveAttention(self.encoder.output_size, attention_size)
        self.drop = Dropout(dropout)
        self.head = nn.Linear(self.encoder.output_size, num_classes)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        x, weights = self._weighed(inputs)  # (B, T, D), (B, T)
        # c = Σ_t α_t x_t
        text = torch.einsum("bt,btd->bd", weights.to(x.dtype), x)  # (B, D)
        return self.head(self.drop(text))  # (B, num_classes)

    def attention_weights(self, inputs: dict[str, Tensor]) -> Tensor:
        """How much each token of each text counts: (B, T), 1 in sum, 0 on padding."""
        return self._weighed(inputs)[1]

    def _weighed(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        tokens, mask = inputs["input_ids"], inputs["attention_mask"].bool()  # (B, T), (B, T)
        x = self.encoder(tokens, mask)  # (B, T, D)
        return x, self.attention(x, mask)
