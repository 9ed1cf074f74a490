"""Skip-gram: a word tells its neighbours, by the product of two vectors.

Mikolov et al. 2013, "Distributed representations of words and phrases and their compositionality".
Every word has two vectors: u as the word in the middle, v as a neighbour. Whether a pair belongs
together is judged by one number,

    logit(word, neighbour) = u(word) · v(neighbour),

so words with the same neighbours get vectors u that point the same way: those are what is kept. A
softmax over all words would cost a product with every v; negative sampling only asks to tell the
true neighbour from a few drawn ones.

New against a bag of words: nobody labels anything, the text is its own teacher.
"""

from torch import Tensor, nn


class SkipGram(nn.Module):
    """logits[i, j] = u(word i) · v(candidate j), for rows of words that share candidates.

    Gradients are of the vectors in use only: torch.optim.SGD, Adagrad and SparseAdam take them.

    Args:
        vocab_size: number of words.
        dim: width of a vector.
    """

    def __init__(self, vocab_size: int, dim: int = 100) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.dim = dim
        self.words = nn.Embedding(vocab_size, dim, sparse=True)  # u
        self.contexts = nn.Embedding(vocab_size, dim, sparse=True)  # v
        nn.init.uniform_(self.words.weight, -0.5 / dim, 0.5 / dim)
        nn.init.zeros_(self.contexts.weight)  # every logit 0: nothing is known of any pair

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        words = self.words(inputs["input_ids"])  # (R, L, D)
        candidates = self.contexts(inputs["candidates"])  # (R, C, D)
        return words @ candidates.mT  # (R, L, C)

    def vectors(self) -> Tensor:
        """What a word is like, (V, D)."""
        return self.words.weight.detach()


class CBOW(SkipGram):
    """Continuous bag of words: the mean of its neighbours' vectors tells the word in the middle.

    logits[i, j] = mean of u(neighbours of word i) · v(candidate j). Mikolov et al. 2013, "Efficient
    estimation of word representations in vector space". Faster, since the neighbours of a word are
    one example and not ten; and coarser for rare words.

    Args:
        vocab_size: number of words.
        dim: width of a vector.
    """

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        span = self.words(inputs["input_ids"])  # (R, S, D)
        means = inputs["windows"] @ span  # (R, L, D)
        candidates = self.contexts(inputs["candidates"])  # (R, C, D)
        return means @ candidates.mT  # (R, L, C)
