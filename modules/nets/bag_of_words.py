"""Bag of words: the mean of the words' vectors, then one linear layer, as fastText does it.

Joulin, Grave, Bojanowski & Mikolov 2017, "Bag of tricks for efficient text classification"; the
lowest rung of text classification. The order of the words is lost, except for what their pairs say:
with `bigram_buckets` each pair of neighbours has a vector too. There are too many pairs to number
them, so a hash gives each one of the buckets; the few that share one are not worth telling apart.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets.layers.dropout import Dropout

FACTORS = 0x9E3779B1, 0x85EBCA77  # odd numbers without a pattern in their bits


def hash_bigrams(tokens: Tensor, buckets: int) -> Tensor:
    """A number in 0 … buckets - 1 for each pair of neighbours: (B, T) to (B, T - 1)."""
    first, second = tokens[:, :-1] + 1, tokens[:, 1:] + 1
    mixed = first * FACTORS[0] ^ second * FACTORS[1]
    return (mixed ^ mixed >> 15) % buckets


class BagOfWords(nn.Module):
    """logits = W · mean of the vectors of words (and of pairs) + b.

    Args:
        num_classes: number of classes.
        vocab_size: number of different tokens.
        dim: width of a vector.
        bigram_buckets: number of vectors for pairs of neighbours; 0: words alone.
        dropout: probability of dropping an element of the mean.
        sparse: give gradients of the vectors in use only. SGD, Adagrad and SparseAdam take them;
            that is faster where the table is large.
    """

    def __init__(
        self,
        num_classes: int,
        vocab_size: int,
        dim: int = 128,
        bigram_buckets: int = 0,
        dropout: float = 0.0,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        if bigram_buckets < 0:
            raise ValueError(f"bigram_buckets must be 0 or more, not {bigram_buckets}")
        self.num_classes = num_classes
        self.vocab_size = vocab_size
        self.dim = dim
        self.bigram_buckets = bigram_buckets
        self.dropout = dropout
        self.sparse = sparse
        self.embedding = nn.Embedding(vocab_size + bigram_buckets, dim, sparse=sparse)
        self.drop = Dropout(dropout)
        self.head = nn.Linear(dim, num_classes)
        nn.init.uniform_(self.embedding.weight, -1 / dim, 1 / dim)  # small: what is rare stays so

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens, mask = inputs["input_ids"], inputs["attention_mask"].bool()  # (B, T), (B, T)
        if self.bigram_buckets:
            pairs = hash_bigrams(tokens, self.bigram_buckets) + self.vocab_size  # (B, T - 1)
            tokens = torch.cat([tokens, pairs], dim=1)  # (B, 2T - 1)
            mask = torch.cat([mask, mask[:, 1:]], dim=1)  # (B, 2T - 1)
        # One kernel looks up, weights and adds: no (B, T, D) stands in memory.
        weights = mask.to(self.embedding.weight.dtype) / mask.sum(dim=1, keepdim=True)
        mean = F.embedding_bag(
            tokens,
            self.embedding.weight,
            per_sample_weights=weights,
            mode="sum",
            sparse=self.sparse,
        )  # (B, D)
        return self.head(self.drop(mean))  # (B, num_classes)
