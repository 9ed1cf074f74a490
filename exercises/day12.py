"""Day 12: word vectors: skip-gram pairs, negative sampling, subsampling and analogies."""

import numpy as np


def skip_gram_pairs(words: list[int], window: int) -> list[tuple[int, int]]:
    """Return the (center, context) pairs of a text.

    Contexts are the words at most `window` positions before or after the center. Pairs are ordered
    by the position of the center, then by that of the context.

    Args:
        words: Ids of the words of a text.
        window: Largest distance.

    Source: Mikolov et al. 2013 (arXiv:1301.3781), section 3.2.
    """
    raise NotImplementedError


def negative_sampling(
    center: np.ndarray, context: np.ndarray, negatives: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Return the loss of skip-gram with negative sampling and its gradients.

        loss = -log σ(u·v) - Σ_k log σ(-n_k·v)

    Derive the gradients from d log σ(x) / dx = σ(-x). Scores of ±1000 must not overflow.

    Args:
        center: Vector v of the center word, (D,).
        context: Output vector u of the context word, (D,).
        negatives: Output vectors n_k of sampled words, (K, D).

    Returns:
        Loss and the gradients of center (D,), context (D,) and negatives (K, D).

    Source: Mikolov et al. 2013 (arXiv:1310.4546), equation 4.
    """
    raise NotImplementedError


def keep_probability(frequency: np.ndarray, threshold: float = 1e-5) -> np.ndarray:
    """Return the probability with which a word of the text is kept.

        p(w) = min(1, √(threshold / f(w)))

    Args:
        frequency: Fraction f of the text's words that are w, (V,); 0 for words that do not occur.
        threshold: Words that are more frequent are thinned out.

    Source: Mikolov et al. 2013 (arXiv:1310.4546), equation 5.
    """
    raise NotImplementedError


def analogy(vectors: np.ndarray, a: int, b: int, c: int) -> int:
    """Return the word d for which a is to b as c is to d.

    The word with the largest cosine similarity to b - a + c of the normalized vectors; a, b and c
    are excluded.

    Args:
        vectors: Vectors of all words, (V, D).
        a: Index of a word, such as "man".
        b: Index of a word, such as "king".
        c: Index of a word, such as "woman".

    Source: Mikolov, Yih & Zweig 2013, Linguistic regularities in continuous space.
    """
    raise NotImplementedError
