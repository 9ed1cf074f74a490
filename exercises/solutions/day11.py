"""Solutions of day 11."""

from collections import Counter

import numpy as np


def build_vocab(texts: list[list[str]], max_size: int, min_count: int = 1) -> dict[str, int]:
    counts = Counter(word for text in texts for word in text)
    words = sorted(counts, key=lambda word: (-counts[word], word))
    kept = [word for word in words if counts[word] >= min_count][: max_size - 2]
    return {word: index for index, word in enumerate(["[PAD]", "[UNK]", *kept])}


def pad_batch(
    texts: list[list[str]], vocab: dict[str, int], max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    cut = [text[:max_length] for text in texts]
    lengths = np.array([len(text) for text in cut])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, vocab["[PAD]"])
    ids[mask] = [vocab.get(word, vocab["[UNK]"]) for text in cut for word in text]
    return ids, mask


def tf_idf(counts: np.ndarray) -> np.ndarray:
    documents = (counts > 0).sum(axis=0)
    features = counts * (np.log((1 + len(counts)) / (1 + documents)) + 1)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(norms > 0, norms, 1)


def length_batches(lengths: list[int], batch_size: int) -> list[list[int]]:
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
