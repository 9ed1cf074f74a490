"""GloVe: word vectors whose dot products approximate the logarithm of co-occurrence counts.

Pennington, Socher & Manning 2014, "GloVe: Global vectors for word representation":

    logit(i, j) = w(i) · c(j) + b(i) + d(j)  ≈  ln X(i, j)

Compared with skip_gram.py: the text is read once, to count co-occurrences X. Training then visits
each pair of words once per epoch, however often it occurs in the text.
"""

import torch
from torch import Tensor, nn


class GloVe(nn.Module):
    """logits = w(word) · c(candidate) + b(word) + d(candidate), for each pair.

    The embeddings have sparse gradients: use SGD, Adagrad or SparseAdam.

    Args:
        vocab_size: Number of words in the vocabulary.
        dim: Width of the word vectors.
    """

    def __init__(self, vocab_size: int, dim: int = 100) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.dim = dim
        # The bias is the last element, which saves a second lookup.
        self.words = nn.Embedding(vocab_size, dim + 1, sparse=True)  # w and b
        self.contexts = nn.Embedding(vocab_size, dim + 1, sparse=True)  # c and d
        for table in (self.words, self.contexts):
            nn.init.uniform_(table.weight, -0.5 / dim, 0.5 / dim)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        words = self.words(inputs["input_ids"])  # (B, D + 1)
        candidates = self.contexts(inputs["candidates"])  # (B, D + 1)
        products = torch.linalg.vecdot(words[:, :-1], candidates[:, :-1])  # (B,)
        return (products + words[:, -1] + candidates[:, -1])[:, None]  # (B, 1)

    def vectors(self) -> Tensor:
        """Return the word vectors, the sum of w and c, (V, D)."""
        return (self.words.weight + self.contexts.weight)[:, :-1].detach()
