"""Grader of day 39."""

import hashlib

import numpy as np

from exercises import expect
from exercises.grading import Task


def _bucket(text):
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) % 100


def split_by_hash(hash_split):
    keys = [f"user-{i}" for i in range(300)] + ["Größe"]
    right = ["val" if _bucket(key) < 20 else "train" for key in keys]
    mistakes = {
        "below val_percent: the bucket val_percent is in train.": [
            "val" if _bucket(key) <= 20 else "train" for key in keys
        ],
        "val and train are exchanged.": ["train" if label == "val" else "val" for label in right],
    }
    expect.equal(hash_split(keys, 20), right, mistakes)
    salted = ["val" if _bucket("b" + key) < 20 else "train" for key in keys]
    expect.equal(
        hash_split(keys, 20, "b"), salted, {"use the salt.": right}, "the split with a salt"
    )


def split_is_stable(hash_split):
    keys = [f"k{i}" for i in range(50)]
    both = hash_split(keys, 30)
    hint = "hash() of Python differs from process to process, and shuffling depends on the other samples."
    expect.true(
        hash_split(keys[::-1], 30) == both[::-1],
        "the split depends on the order of the samples.",
        hint,
    )
    expect.equal(
        hash_split(["a", "a"], 50)[0], hash_split(["b", "a"], 50)[1], name="the split of one key"
    )
    expect.equal(hash_split(keys, 0), ["train"] * 50, name="the split for 0 %")
    expect.equal(hash_split(keys, 100), ["val"] * 50, name="the split for 100 %")


def _shares(edges, values):
    counts = np.array(
        [
            np.sum((values >= low) & (values < high))
            for low, high in zip([-np.inf, *edges], [*edges, np.inf], strict=True)
        ]
    )
    return np.maximum(counts / len(values), 1e-4)


def drift_of_a_feature(population_stability):
    expected, actual = expect.normal(500), 1.3 * expect.normal(300, seed=1) + 0.4
    edges = np.quantile(expected, [0.2, 0.4, 0.6, 0.8])
    e, a = _shares(edges, expected), _shares(edges, actual)
    right = ((a - e) * np.log(a / e)).sum()
    ranges = np.linspace(expected.min(), expected.max(), 6)[1:-1]
    e2, a2 = _shares(ranges, expected), _shares(ranges, actual)
    inner = np.histogram(actual, [expected.min(), *edges, expected.max()])[0] / 300
    mistakes = {
        "the edges are quantiles of the training data, not of equal width.": (
            (a2 - e2) * np.log(a2 / e2)
        ).sum(),
        "this is the Kullback-Leibler divergence; use a - e.": (a * np.log(a / e)).sum(),
        "the outer edges are infinite: values outside of the training data count.": (
            (inner - e) * np.log(inner / e)
        ).sum(),
        "compare shares, not counts.": ((a * 300 - e * 500) * np.log(a * 300 / (e * 500))).sum(),
    }
    expect.close(population_stability(expected, actual, 5), right, mistakes)
    expect.close(population_stability(expected, expected, 10), 0.0, name="the index of equal data")


def empty_bins(population_stability):
    expected = np.arange(100.0)
    edges = np.quantile(expected, [0.25, 0.5, 0.75])
    e, a = _shares(edges, expected), _shares(edges, np.full(10, 1000.0))
    with np.errstate(all="ignore"):
        found = population_stability(expected, np.full(10, 1000.0), 4)
    expect.close(
        found, ((a - e) * np.log(a / e)).sum(), {"log 0 is -inf: shares are at least 1e-4.": np.inf}
    )


STEPS = {
    "train": ["features", "config.yaml"],
    "features": ["clean"],
    "clean": ["raw.csv"],
    "report": ["train", "clean"],
    "docs": ["README.md"],
}


def steps_that_run_again(stale_steps):
    mistakes = {
        "a step that reads a stale step is stale, too.": ["clean"],
        "a step comes after the steps that it reads.": ["clean", "features", "report", "train"],
        "only what depends on a change runs again.": [
            "clean",
            "docs",
            "features",
            "train",
            "report",
        ],
    }
    expect.equal(
        stale_steps(STEPS, {"raw.csv"}), ["clean", "features", "train", "report"], mistakes
    )
    expect.equal(stale_steps(STEPS, {"config.yaml"}), ["train", "report"])
    expect.equal(
        stale_steps(STEPS, {"features"}),
        ["features", "train", "report"],
        {"a step whose code changed runs again itself.": ["train", "report"]},
        "the list for changed code of features",
    )
    expect.equal(stale_steps(STEPS, {"unknown.txt"}), [])


def order_of_independent_steps(stale_steps):
    steps = {"c": ["x"], "a": ["x"], "b": ["c"]}
    expect.equal(
        stale_steps(steps, {"x"}),
        ["a", "c", "b"],
        {"of several the first in alphabetical order, as soon as it can run.": ["c", "a", "b"]},
    )


def circles(stale_steps):
    expect.raises(
        ValueError,
        lambda: stale_steps({"a": ["b"], "b": ["a"]}, {"a"}),
        "if a reads b and b reads a",
    )


TASKS = [
    Task("hash_split", [split_by_hash, split_is_stable]),
    Task("population_stability", [drift_of_a_feature, empty_bins]),
    Task("stale_steps", [steps_that_run_again, order_of_independent_steps, circles]),
]
