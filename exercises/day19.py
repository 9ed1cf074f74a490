"""Day 19: character-level language models: bigrams, their loss, contexts and sampling."""

import numpy as np


def bigram_probabilities(tokens: np.ndarray, vocab_size: int, alpha: float = 1.0) -> np.ndarray:
    """Return the smoothed probabilities of a bigram model.

        p(b | a) = (n_ab + α) / (n_a + α V)

    Args:
        tokens: A text, integers (N,).
        vocab_size: Number of characters V.
        alpha: Smoothing, > 0.

    Returns:
        Array (V, V); row a is the distribution after character a.

    Source: Jurafsky & Martin, Speech and Language Processing, section 3.5.
    """
    raise NotImplementedError


def mean_loss(probabilities: np.ndarray, tokens: np.ndarray) -> float:
    """Return the mean negative log-likelihood of a text under a bigram model, in nats.

    The first character is given, so a text of N characters has N - 1 predictions.

    Args:
        probabilities: Rows p(· | a), (V, V).
        tokens: A text, (N,), N >= 2.
    """
    raise NotImplementedError


def conditional_entropy(probabilities: np.ndarray) -> float:
    """Return the smallest loss that any model can reach on text from a Markov chain, in nats.

        H = -Σ_a π_a Σ_b p(b | a) log p(b | a),  with π = π P

    π is the stationary distribution: the left eigenvector of the eigenvalue 1, with sum 1. 0 log 0
    is 0.

    Args:
        probabilities: Rows p(· | a) of an ergodic chain, (V, V); entries may be 0.

    Source: Cover & Thomas, Elements of Information Theory, theorem 4.2.4.
    """
    raise NotImplementedError


def contexts(tokens: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all contexts of a text and the character that follows each.

    Args:
        tokens: A text, (N,).
        size: Characters of a context.

    Returns:
        Contexts (N - size, size), oldest character first, and targets (N - size,).

    Source: Bengio et al. 2003, A neural probabilistic language model.
    """
    raise NotImplementedError
