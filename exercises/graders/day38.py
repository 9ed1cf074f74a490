"""Grader of day 38."""

import math

from exercises import expect
from exercises.grading import Task


def flat_names(flatten):
    config = {
        "seed": 1,
        "optimizer": {"lr": 0.1, "betas": [0.9, 0.99], "schedule": {"name": "cosine"}},
        "callbacks": {},
        "none": None,
    }
    right = {
        "seed": 1,
        "optimizer.lr": 0.1,
        "optimizer.betas": [0.9, 0.99],
        "optimizer.schedule.name": "cosine",
        "none": None,
    }
    mistakes = {
        "go down any number of levels.": {
            **{k: v for k, v in right.items() if "name" not in k},
            "optimizer.schedule": {"name": "cosine"},
        },
        "an empty dict is left out.": {**right, "callbacks": {}},
        "keep the names of outer levels.": {
            "seed": 1,
            "lr": 0.1,
            "betas": [0.9, 0.99],
            "name": "cosine",
            "none": None,
        },
    }
    expect.equal(flatten(config), right, mistakes)


def equal_names(flatten):
    expect.raises(
        ValueError,
        lambda: flatten({"a": {"b": 1}, "a.b": 2}),
        "if two parameters are named a.b: one would be lost",
    )


def _run(name, status="finished", **metrics):
    return {"name": name, "status": status, "metrics": metrics}


def best_of_finished_runs(best_run):
    runs = [
        _run("a", loss=0.5),
        _run("b", "failed", loss=0.1),
        _run("c", loss=math.nan),
        _run("d", accuracy=0.9),
        _run("e", loss=0.3),
        _run("f", loss=0.3),
        _run("g", "running", loss=0.2),
    ]
    mistakes = {
        "only finished runs count.": "b",
        "nan is not the best loss: comparisons with nan are false.": "c",
        "of equal runs the first is the best.": "f",
        "the mode is min.": "a",
    }
    expect.equal(best_run(runs, "loss", "min"), "e", mistakes)
    expect.equal(best_run(runs, "loss", "max"), "a", {"mode is max.": "e"}, "the result for max")
    nan_first = [_run("c", loss=math.nan), _run("a", loss=0.5)]
    expect.equal(
        best_run(nan_first, "loss", "min"),
        "a",
        {"nan is not the best loss: comparisons with nan are false.": "c"},
        "the result with nan first",
    )


def no_run_is_left(best_run):
    found = best_run([_run("a", accuracy=1.0)], "loss", "min")
    expect.true(
        found is None,
        f"the result is {found!r}, expected None.",
        "without the metric in any run there is no best one.",
    )
    expect.raises(ValueError, lambda: best_run([], "loss", "lowest"), "for the mode 'lowest'")


def versions_and_aliases(Registry):
    registry = Registry()
    numbers = [registry.register(run) for run in ("r1", "r2", "r3")]
    expect.equal(numbers, [1, 2, 3], {"versions begin at 1.": [0, 1, 2]}, "the list of versions")
    registry.promote("production", 1)
    registry.promote("staging", 3)
    expect.equal(
        [registry.resolve("production"), registry.resolve("staging")],
        ["r1", "r3"],
        {"each alias has its own version.": ["r3", "r3"]},
        "the list of runs",
    )
    registry.promote("production", 2)
    expect.equal(
        registry.resolve("production"),
        "r2",
        {"an alias points to the last promotion.": "r1"},
        "the run in production",
    )


def rollbacks(Registry):
    registry = Registry()
    for run in ("r1", "r2", "r3"):
        registry.register(run)
    for version in (1, 3, 3, 2):
        registry.promote("production", version)
    first = registry.rollback("production")
    expect.equal(
        first,
        3,
        {"go back to the promotion before, not to the version number before.": 1},
        "the version after a rollback",
    )
    second = registry.rollback("production")
    mistakes = {
        "a second rollback goes back further, not forth.": 2,
        "promoting a version again changes nothing.": 3,
    }
    expect.equal(second, 1, mistakes, "the version after two rollbacks")
    expect.equal(registry.resolve("production"), "r1", name="the run after two rollbacks")


def errors_of_the_registry(Registry):
    registry = Registry()
    registry.register("r1")
    expect.raises(ValueError, lambda: registry.promote("production", 2), "for an unknown version")
    expect.raises(
        ValueError, lambda: registry.promote("production", 0), "for version 0 (index -1 of a list)"
    )
    expect.raises(ValueError, lambda: registry.resolve("production"), "for an unknown alias")
    registry.promote("production", 1)
    expect.raises(
        ValueError, lambda: registry.rollback("production"), "if there is no earlier version"
    )
    expect.equal(registry.resolve("production"), "r1", name="the run after a refused rollback")


TASKS = [
    Task("flatten", [flat_names, equal_names]),
    Task("best_run", [best_of_finished_runs, no_run_is_left]),
    Task("Registry", [versions_and_aliases, rollbacks, errors_of_the_registry]),
]
