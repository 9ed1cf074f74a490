"""Grader of day 42."""

import math

import numpy as np

from exercises import expect
from exercises.grading import Task


def chunks_with_overlap(chunk):
    tokens = list("abcdefgh")
    right = [list("abcd"), list("cdef"), list("efgh")]
    mistakes = {
        "the last chunk lies inside the one before it: stop when a chunk reaches the end.": [
            *right,
            list("gh"),
        ],
        "the next chunk starts size - overlap tokens later.": [list("abcd"), list("efgh")],
        "the end of the document is missing.": right[:-1],
    }
    expect.equal(chunk(tokens, 4, 2), right, mistakes)


def chunks_of_uneven_documents(chunk):
    mistakes = {"the end of the document is missing.": [list("abc"), list("cde")]}
    expect.equal(chunk(list("abcdef"), 3, 1), [list("abc"), list("cde"), list("ef")], mistakes)
    expect.equal(chunk(list("ab"), 5, 2), [list("ab")], {"a short document is one chunk.": []})
    expect.equal(chunk([], 5, 2), [], {"an empty document has no chunks.": [[]]})


def invalid_overlap(chunk):
    for overlap in (3, 4, -1):
        expect.raises(
            ValueError, lambda n=overlap: chunk(list("abcdef"), 3, n), f"for overlap {overlap} of 3"
        )


def passages_within_the_budget(select_passages):
    scores, lengths = [0.2, 0.9, 0.5, 0.8, 0.1], [10, 40, 30, 60, 20]
    mistakes = {
        "return document order, not order of score.": [1, 2, 0],
        "skip a passage that does not fit and go on.": [1],
        "the budget is used up: subtract each length.": [0, 1, 2, 3, 4],
    }
    expect.equal(select_passages(scores, lengths, 90), [0, 1, 2], mistakes)
    expect.equal(
        select_passages(scores, lengths, 100),
        [1, 3],
        {
            "a passage that fits exactly is taken.": [0, 1, 2],
            "take the best passages first.": [0, 1, 2, 4],
        },
    )


def equal_scores_and_no_passages(select_passages):
    expect.equal(
        select_passages([0.5, 0.5], [5, 5], 5),
        [0],
        {"of equal scores the earlier passage is first.": [1]},
    )
    expect.equal(select_passages([], [], 5), [])


def f1_of_answers(answer_f1):
    prediction, answer = "The cat, the black cat!", "a black cat sat"
    mistakes = {
        "remove a, an and the.": 2 * 2 / (5 + 4),
        "remove punctuation.": 2 * 1 / (3 + 3),
        "a repeated token counts as often as in both answers.": 2 * 3 / (3 + 3),
        "count repeated tokens, too.": 2 * 2 / (2 + 3),
        "this is the recall; return F1.": 2 / 3,
        "use lower case.": 2 * 2 / (4 + 3),
    }
    expect.close(answer_f1(prediction, answer), 2 * 2 / (3 + 3), mistakes)
    both = answer_f1("New York New York", "new york city")
    expect.close(
        both, 2 * 2 / 7, {"a repeated token counts as often as in both answers.": 2 * 4 / 7}
    )


def f1_of_empty_answers(answer_f1):
    expect.close(answer_f1("", ""), 1.0, name="the F1 of two empty answers")
    expect.close(answer_f1("the", ""), 1.0, name="the F1 of 'the' and an empty answer")
    expect.close(answer_f1("Paris", ""), 0.0, name="the F1 of 'Paris' and an empty answer")
    expect.close(answer_f1("Paris", "Rome"), 0.0, name="the F1 of different answers")


def threshold_of_a_precision(abstention_threshold):
    scores = np.array([0.9, 0.2, 0.8, 0.4, 0.6, 0.5])
    correct = np.array([True, False, False, True, True, True])
    # given answers by ascending threshold: 4/6, 4/5, 3/4, 2/3, 1/2, 1
    mistakes = {
        "return the smallest threshold, so that most questions are answered.": 0.9,
        "precision is not monotone: look at all thresholds.": 0.9,
        "answers below the threshold are not given.": 0.5,
        "an answer with the score of the threshold is given: use >=.": 0.2,
    }
    expect.close(abstention_threshold(scores, correct, 0.75), 0.4, mistakes)
    expect.close(
        abstention_threshold(scores, correct, 0.9), 0.9, name="the result for precision 0.9"
    )


def threshold_of_equal_scores(abstention_threshold):
    scores, correct = np.array([0.5, 0.5, 0.5, 0.1]), np.array([True, True, False, False])
    hint = "answers with equal scores are given together."
    expect.close(abstention_threshold(scores, correct, 0.9), math.inf, {hint: 0.5})


def threshold_that_nothing_reaches(abstention_threshold):
    result = abstention_threshold(np.array([0.3, 0.7]), np.array([True, False]), 0.9)
    expect.close(result, math.inf, {"no threshold reaches the precision: return inf.": 0.7})


TASKS = [
    Task("chunk", [chunks_with_overlap, chunks_of_uneven_documents, invalid_overlap]),
    Task("select_passages", [passages_within_the_budget, equal_scores_and_no_passages]),
    Task("answer_f1", [f1_of_answers, f1_of_empty_answers]),
    Task(
        "abstention_threshold",
        [threshold_of_a_precision, threshold_of_equal_scores, threshold_that_nothing_reaches],
    ),
]
