"""Attention RNN: a recurrent encoder with additive attention pooling for text classification.

Bahdanau, Cho & Bengio 2015, "Neural machine translation by jointly learning to align and
translate", equation for e_ij; for classification Yang et al. 2016, "Hierarchical attention networks
for document classification". The last state of an RNN must represent the whole text, and early
tokens fade. New here: the text vector is a weighted mean over all tokens with learned weights,
which also show what the prediction depends on.
"""

import torch
from torch import Tensor, nn

from modules.nets.layers.dropout import Dropout
from modules.nets.text_rnn import TextEncoder


class AdditiveAttention(nn.Module):
    """One attention weight per token.

    Args:
        dim: Width of the inputs.
        hidden_size: Width of the hidden layer.
    """

    def __init__(self, dim: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, hidden_size)
        self.score = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return weights (B, T) for inputs (B, T, D); they sum to 1 and are 0 on padding."""
        # e_t = v · tanh(W x_t + b)        α = softmax(e)
        return self.weights(self.hidden(x), mask)  # (B, T)

    def weights(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return the weights, given the hidden layer before its tanh, (B, T, hidden_size)."""
        scores = self.score(torch.tanh(hidden)).squeeze(-1)  # (B, T)
        return scores.float().masked_fill(~mask, float("-inf")).softmax(dim=-1)  # (B, T)


class AttentionRNN(nn.Module):
    """Recurrent layers, attention pooling, one linear layer.

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
        attention_size: Width of the hidden layer of the attention.
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
        x, weights = self._encode(inputs)  # (B, T, D), (B, T)
        # c = Σ_t α_t x_t
        text = torch.einsum("bt,btd->bd", weights.to(x.dtype), x)  # (B, D)
        return self.head(self.drop(text))  # (B, num_classes)

    def attention_weights(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the attention weights, (B, T); they sum to 1 and are 0 on padding."""
        return self._encode(inputs)[1]

    def _encode(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        tokens, mask = inputs["input_ids"], inputs["attention_mask"].bool()  # (B, T), (B, T)
        x = self.encoder(tokens, mask)  # (B, T, D)
        return x, self.attention(x, mask)
