"""Grader of day 11."""

import math

import numpy as np

from exercises import expect
from exercises.grading import Task

TEXTS = [["b", "a", "c", "a"], ["c", "b", "d"], ["a", "e"]]


def vocabulary(build_vocab):
    right = {"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3, "c": 4, "d": 5, "e": 6}
    first_seen = {"[PAD]": 0, "[UNK]": 1, "b": 2, "a": 3, "c": 4, "d": 5, "e": 6}
    mistakes = {
        "sort by frequency, then alphabetically.": first_seen,
        "[PAD] and [UNK] have the ids 0 and 1.": {
            word: index - 2 for word, index in right.items() if index > 1
        },
    }
    expect.equal(build_vocab(TEXTS, 100), right, mistakes)


def limits_of_the_vocabulary(build_vocab):
    right = {"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3}
    mistakes = {"max_size counts the two special tokens, too.": {**right, "c": 4, "d": 5}}
    expect.equal(build_vocab(TEXTS, 4), right, mistakes)
    mistakes = {"a word with min_count occurrences is kept.": {"[PAD]": 0, "[UNK]": 1, "a": 2}}
    expect.equal(
        build_vocab(TEXTS, 100, 2), {**right, "c": 4}, mistakes, "the result for min_count 2"
    )


VOCAB = {"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3}


def padded_ids(pad_batch):
    ids, mask = expect.parts(pad_batch([["a", "z"], ["b", "a", "b"], []], VOCAB, 5), 2)
    right = np.array([[2, 1, 0], [3, 2, 3], [0, 0, 0]])
    mistakes = {
        "pad at the end, not at the beginning.": np.array([[0, 2, 1], [3, 2, 3], [0, 0, 0]]),
        "an unknown word has the id of [UNK].": np.array([[2, 0, 0], [3, 2, 3], [0, 0, 0]]),
        "the batch is as wide as its longest text.": np.pad(right, ((0, 0), (0, 2))),
    }
    expect.close(ids, right, mistakes, "the ids")
    expect.close(mask, right > 0, {"True means a word.": right == 0}, "the mask")


def cut_texts(pad_batch):
    ids, mask = expect.parts(pad_batch([["a", "b", "b"], ["b"]], VOCAB, 2), 2)
    expect.close(
        ids,
        np.array([[2, 3], [3, 0]]),
        {"cut after max_length words.": np.array([[2, 3, 3], [3, 0, 0]])},
        "the ids",
    )
    expect.close(mask, np.array([[True, True], [True, False]]), name="the mask")


def features(tf_idf):
    counts = np.array([[2.0, 1, 0], [0, 1, 0], [0, 3, 1], [1, 1, 0]])
    right, plain, sums = (np.zeros_like(counts) for _ in range(3))
    for i in range(4):
        row = [
            c * (math.log(5 / (1 + sum(counts[k][j] > 0 for k in range(4)))) + 1)
            for j, c in enumerate(counts[i])
        ]
        right[i], plain[i] = np.array(row) / math.sqrt(sum(x * x for x in row)), row
        sums[i] = np.array(row) / sum(row)
    total = counts * (np.log(5 / (1 + counts.sum(0))) + 1)
    mistakes = {
        "divide each row by its L2 norm.": plain,
        "the norm is the root of the sum of squares.": sums,
        "count the texts that contain a word, not its occurrences.": total
        / np.linalg.norm(total, axis=1, keepdims=True),
    }
    expect.close(expect.unchanged(tf_idf, counts), right, mistakes)


def features_of_an_empty_text(tf_idf):
    with np.errstate(all="ignore"):
        result = tf_idf(np.array([[0.0, 0.0], [1.0, 0.0]]))
    expect.close(
        result,
        np.array([[0.0, 0.0], [1.0, 0.0]]),
        {"0 / 0 is nan: an empty text has only zeros.": np.array([[np.nan, np.nan], [1.0, 0.0]])},
    )


def batches_of_similar_length(length_batches):
    mistakes = {
        "return the indices of the texts, not their lengths.": [[1, 3], [3, 5], [9]],
        "the last, smaller batch is missing.": [[1, 3], [4, 2]],
        "sort by length first.": [[0, 1], [2, 3], [4]],
    }
    expect.equal(length_batches([9, 1, 5, 3, 3], 2), [[1, 3], [4, 2], [0]], mistakes)
    expect.equal(length_batches([2, 2, 2], 2), [[0, 1], [2]])


TASKS = [
    Task("build_vocab", [vocabulary, limits_of_the_vocabulary]),
    Task("pad_batch", [padded_ids, cut_texts]),
    Task("tf_idf", [features, features_of_an_empty_text]),
    Task("length_batches", [batches_of_similar_length]),
]
