"""GloVe: the product of two words' vectors is the logarithm of how often they stand together.

Pennington, Socher & Manning 2014, "GloVe: Global vectors for word representation":

    logit(i, j) = w(i) · c(j) + b(i) + d(j)  ≈  ln X(i, j)

New against skip_gram.py: the text is read once, to count; what is learned from is the table of
counts, and each pair of words is met once an epoch, however often it stands in the text.
"""

import torch
from torch import Tensor, nn


class GloVe(nn.Module):
    """logits = w(word) · c(candidate) + the biases of both, pair by pair.

    Gradients are of the vectors in use only: torch.optim.SGD, Adagrad and SparseAdam take them.

    Args:
        vocab_size: number of words.
        dim: width of a vector.
    """

    def __init__(self, vocab_size: int, dim: int = 100) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.dim = dim
        # The bias is the last element: one look-up instead of two.
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
        """What a word is like: the sum of both its vectors, (V, D)."""
        return (self.words.weight + self.contexts.weight)[:, :-1].detach()
