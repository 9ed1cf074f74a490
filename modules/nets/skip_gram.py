"""Skip-gram and CBOW: word vectors trained to predict neighboring words.

Mikolov et al. 2013, "Distributed representations of words and phrases and their compositionality".
Every word has two vectors: u as the center word, v as a neighbor. The score of a pair is

    logit(word, neighbor) = u(word) · v(neighbor),

so words with similar neighbors get similar vectors u, which are the result. A softmax over the
vocabulary would need a product with every v; negative sampling only discriminates the true neighbor
from a few random words.

Compared with a bag of words: training needs no labels, only text.
"""

from torch import Tensor, nn


class SkipGram(nn.Module):
    """logits[i, j] = u(word i) · v(candidate j), for groups of words that share candidates.

    The embeddings have sparse gradients: use SGD, Adagrad or SparseAdam.

    Args:
        vocab_size: Number of words in the vocabulary.
        dim: Width of the word vectors.
    """

    def __init__(self, vocab_size: int, dim: int = 100) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.dim = dim
        self.words = nn.Embedding(vocab_size, dim, sparse=True)  # u
        self.contexts = nn.Embedding(vocab_size, dim, sparse=True)  # v
        nn.init.uniform_(self.words.weight, -0.5 / dim, 0.5 / dim)
        nn.init.zeros_(self.contexts.weight)  # all logits start at 0

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        words = self.words(inputs["input_ids"])  # (R, L, D)
        candidates = self.contexts(inputs["candidates"])  # (R, C, D)
        return words @ candidates.mT  # (R, L, C)

    def vectors(self) -> Tensor:
        """Return the word vectors u, (V, D)."""
        return self.words.weight.detach()


class CBOW(SkipGram):
    """Continuous bag of words: predict the center word from the mean of its neighbors' vectors.

    logits[i, j] = mean(u(neighbors of word i)) · v(candidate j). Mikolov et al. 2013, "Efficient
    estimation of word representations in vector space". Faster than skip-gram, since all neighbors
    of a word form one example, but less accurate for rare words.

    Args:
        vocab_size: Number of words in the vocabulary.
        dim: Width of the word vectors.
    """

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        span = self.words(inputs["input_ids"])  # (R, S, D)
        means = inputs["windows"] @ span  # (R, L, D)
        candidates = self.contexts(inputs["candidates"])  # (R, C, D)
        return means @ candidates.mT  # (R, L, C)
