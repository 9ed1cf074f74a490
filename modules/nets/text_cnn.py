"""Text CNN: convolutions over token embeddings that detect phrases of a few words.

Kim 2014, "Convolutional neural networks for sentence classification". A bag of words cannot
distinguish "not good" from "good … not". New here: a filter reads a few adjacent words in order;
max-over-time pooling keeps its largest activation, so texts may have any length.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets.layers.dropout import Dropout
from modules.nets.layers.pooling import masked_max


class TextCNN(nn.Module):
    """Token embeddings, convolutions of several widths, max-over-time pooling, one linear layer.

    Args:
        num_classes: Number of logits.
        vocab_size: Number of tokens in the vocabulary.
        dim: Width of the token embeddings.
        widths: Kernel sizes of the convolutions in tokens, each at least 1.
        filters: Number of filters of each width.
        dropout: Dropout probability of the pooled activations.
        embedding_dropout: Dropout probability of the token embeddings. It helps for short texts; in
            long ones max-pooling selects positions with favorable masks.
    """

    def __init__(
        self,
        num_classes: int,
        vocab_size: int,
        dim: int = 128,
        widths: list[int] = [3, 4, 5],  # noqa: B006  # never mutated; --help shows the default
        filters: int = 100,
        dropout: float = 0.5,
        embedding_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise ValueError(f"widths must be one or more numbers of at least 1, got {widths}")
        self.num_classes = num_classes
        self.vocab_size = vocab_size
        self.dim = dim
        self.widths = list(widths)
        self.filters = filters
        self.dropout = dropout
        self.embedding_dropout = embedding_dropout
        self.embedding = nn.Embedding(vocab_size, dim)
        self.convolutions = nn.ModuleList(nn.Conv1d(dim, filters, width) for width in widths)
        self.drop_vectors = Dropout(embedding_dropout)
        self.drop = Dropout(dropout)
        self.head = nn.Linear(filters * len(widths), num_classes)
        nn.init.normal_(self.embedding.weight, std=0.25)  # as the paper's word vectors

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens, mask = inputs["input_ids"], inputs["attention_mask"].bool()  # (B, T), (B, T)
        x = self.drop_vectors(self.embedding(tokens))  # (B, T, D)
        # Pad every text with zeros, so that a filter can start at its last token.
        x = x.masked_fill(~mask.unsqueeze(-1), 0.0).transpose(1, 2)  # (B, D, T)
        x = F.pad(x, (0, max(self.widths) - 1))  # (B, D, T + width - 1)
        activations = [
            masked_max(convolution(x)[..., : mask.shape[1]].relu().transpose(1, 2), mask)
            for convolution in self.convolutions
        ]  # each (B, filters)
        return self.head(self.drop(torch.cat(activations, dim=1)))  # (B, num_classes)
