"""Typical wrong solutions of day 11."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("build_vocab", "max_size - 2", "max_size", "two special tokens"),
    Mistake("build_vocab", ">= min_count", "> min_count", "is kept"),
    Mistake(
        "build_vocab",
        "sorted(counts, key=lambda word: (-counts[word], word))",
        "list(counts)",
        "sort by frequency",
    ),
    Mistake("pad_batch", 'vocab.get(word, vocab["[UNK]"])', "vocab.get(word, 0)", "id of [UNK]"),
    Mistake("pad_batch", "text[:max_length]", "text", "cut after"),
    Mistake(
        "pad_batch",
        "np.arange(lengths.max()) < lengths[:, None]",
        "np.arange(lengths.max())[::-1] < lengths[:, None]",
        "pad at the end",
    ),
    Mistake("tf_idf", "features / np.where(norms > 0, norms, 1)", "features", "L2 norm"),
    Mistake("tf_idf", "(counts > 0).sum(axis=0)", "counts.sum(axis=0)", "not its occurrences"),
    Mistake("tf_idf", "np.where(norms > 0, norms, 1)", "norms", "only zeros"),
    Mistake(
        "length_batches",
        "sorted(range(len(lengths)), key=lambda index: lengths[index])",
        "list(range(len(lengths)))",
        "sort by length",
    ),
    Mistake(
        "length_batches",
        "sorted(range(len(lengths)), key=lambda index: lengths[index])",
        "sorted(lengths)",
        "not their lengths",
    ),
]
