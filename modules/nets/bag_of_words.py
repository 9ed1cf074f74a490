"""Bag of words: the mean of the token embeddings, then one linear layer, as in fastText.

Joulin, Grave, Bojanowski & Mikolov 2017, "Bag of tricks for efficient text classification"; the
baseline of text classification. Word order is ignored, except that with `bigram_buckets` each pair
of adjacent tokens has an embedding too. There are too many pairs to enumerate, so a hash assigns
each to a bucket; some pairs share one.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets.layers.dropout import Dropout

FACTORS = 0x9E3779B1, 0x85EBCA77  # odd multipliers with irregular bits


def hash_bigrams(tokens: Tensor, buckets: int) -> Tensor:
    """Hash each pair of adjacent tokens to 0 … buckets - 1: (B, T) to (B, T - 1)."""
    first, second = tokens[:, :-1] + 1, tokens[:, 1:] + 1
    mixed = first * FACTORS[0] ^ second * FACTORS[1]
    return (mixed ^ mixed >> 15) % buckets


class BagOfWords(nn.Module):
    """logits = W · mean(embeddings of tokens and of bigrams) + b.

    Args:
        num_classes: Number of logits.
        vocab_size: Number of tokens in the vocabulary.
        dim: Width of the embeddings.
        bigram_buckets: Number of embeddings for bigrams; 0 uses unigrams only.
        dropout: Dropout probability of the mean.
        sparse: Use sparse gradients for the embeddings, which is faster for large vocabularies;
            works with SGD, Adagrad and SparseAdam.
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
            raise ValueError(f"bigram_buckets must be at least 0, got {bigram_buckets}")
        self.num_classes = num_classes
        self.vocab_size = vocab_size
        self.dim = dim
        self.bigram_buckets = bigram_buckets
        self.dropout = dropout
        self.sparse = sparse
        self.embedding = nn.Embedding(vocab_size + bigram_buckets, dim, sparse=sparse)
        self.drop = Dropout(dropout)
        self.head = nn.Linear(dim, num_classes)
        nn.init.uniform_(self.embedding.weight, -1 / dim, 1 / dim)  # fastText's initialization

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens, mask = inputs["input_ids"], inputs["attention_mask"].bool()  # (B, T), (B, T)
        if self.bigram_buckets:
            pairs = hash_bigrams(tokens, self.bigram_buckets) + self.vocab_size  # (B, T - 1)
            tokens = torch.cat([tokens, pairs], dim=1)  # (B, 2T - 1)
            mask = torch.cat([mask, mask[:, 1:]], dim=1)  # (B, 2T - 1)
        # embedding_bag looks up and averages in one kernel, without a (B, T, D) tensor in memory.
        weights = mask.to(self.embedding.weight.dtype) / mask.sum(dim=1, keepdim=True)
        mean = F.embedding_bag(
            tokens,
            self.embedding.weight,
            per_sample_weights=weights,
            mode="sum",
            sparse=self.sparse,
        )  # (B, D)
        return self.head(self.drop(mean))  # (B, num_classes)
