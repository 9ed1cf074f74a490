"""Day 11: vocabulary, encoding, tf-idf and padded batches."""

import numpy as np


def build_vocab(texts: list[list[str]], max_size: int, min_count: int = 1) -> dict[str, int]:
    """Return the ids of the most frequent words.

    Ids 0 and 1 are "[PAD]" and "[UNK]". Words follow by descending frequency, equal frequencies in
    alphabetical order; words that occur less than `min_count` times are left out.

    Args:
        texts: Words of each text of the training data.
        max_size: Most ids, the two special ones included.
        min_count: Smallest number of occurrences.
    """
    raise NotImplementedError


def pad_batch(
    texts: list[list[str]], vocab: dict[str, int], max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of texts, and which positions are words.

    A text is cut after `max_length` words. The batch is as wide as its longest text after the cut;
    shorter ones end with the id of "[PAD]". A word that the vocabulary lacks has the id of "[UNK]".

    Args:
        texts: Words of each text, at least one text.
        vocab: Ids, with "[PAD]" and "[UNK]".
        max_length: Most words of a text.

    Returns:
        Integers (B, T) and booleans (B, T), True for words.
    """
    raise NotImplementedError


def tf_idf(counts: np.ndarray) -> np.ndarray:
    """Return the tf-idf features of texts, as scikit-learn's TfidfTransformer.

        idf_j = log((1 + N) / (1 + n_j)) + 1,  x_ij = counts_ij · idf_j / |row i|₂

    n_j is the number of texts that contain word j. A text without words has only zeros.

    Args:
        counts: Number of occurrences of each word in each text, (N, V).

    Source: Manning, Raghavan & Schütze, Introduction to Information Retrieval, section 6.2.
    """
    raise NotImplementedError


def length_batches(lengths: list[int], batch_size: int) -> list[list[int]]:
    """Group texts of similar length, so that little is padded.

    Sort by length (equal lengths in the given order) and cut into batches; the last may be smaller.

    Args:
        lengths: Number of words of each text.
        batch_size: Texts of a batch.

    Returns:
        Indices of the texts of each batch.
    """
    raise NotImplementedError
