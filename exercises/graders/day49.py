"""Grader of day 49."""

import numpy as np

from exercises import expect
from exercises.grading import Task


def effects_of_variants(ablation_effects):
    results = {
        "base": [0.90, 0.80, 0.85, 0.95],
        "no dropout": [0.89, 0.78, 0.82, 0.95],
        "wide": [0.91, 0.82, 0.86, 0.97],
    }
    found = ablation_effects(results, "base")
    expect.equal(
        sorted(found),
        ["no dropout", "wide"],
        {"the baseline itself is left out.": ["base", "no dropout", "wide"]},
        "the list of variants",
    )
    base = np.array(results["base"])
    for name in ("no dropout", "wide"):
        values = np.array(results[name])
        d = values - base
        mean, error = expect.parts(found[name], 2)
        expect.close(
            mean, d.mean(), {"variant minus baseline.": -d.mean()}, f"the effect of {name}"
        )
        mistakes = {
            "the runs are paired by seed: use the differences.": np.sqrt(
                (values.var(ddof=1) + base.var(ddof=1)) / 4
            ),
            "divide by n - 1 in the standard deviation.": d.std() / 2,
            "the error of a mean is smaller by √n.": d.std(ddof=1),
        }
        expect.close(error, d.std(ddof=1) / 2, mistakes, f"the error of {name}")


def front_of_models(pareto_front):
    models = {
        "small": (1.0, 0.80),
        "bad": (2.0, 0.79),
        "medium": (3.0, 0.90),
        "same": (3.0, 0.90),
        "slow": (4.0, 0.90),
        "large": (9.0, 0.95),
    }
    mistakes = {
        "equal models do not dominate each other.": ["small", "large"],
        "a model that costs more for the same accuracy is dominated.": [
            "small",
            "medium",
            "same",
            "slow",
            "large",
        ],
        "a model does not dominate itself.": [],
        "the cheapest model comes first.": ["large", "medium", "same", "small"],
        "a model that is cheaper and better dominates.": [
            "small",
            "bad",
            "medium",
            "same",
            "slow",
            "large",
        ],
    }
    expect.equal(pareto_front(models), ["small", "medium", "same", "large"], mistakes)
    expect.equal(
        pareto_front({"b": (1.0, 0.5), "a": (1.0, 0.6)}),
        ["a"],
        {"at equal cost the better one dominates.": ["a", "b"]},
    )
    expect.equal(pareto_front({}), [])


def speedups(amdahl_speedup):
    right = 1 / (0.2 + 0.5 / 10 + 0.3 / 2)
    mistakes = {
        "the rest of the time stays.": 1 / (0.5 / 10 + 0.3 / 2),
        "add times, not speed-ups.": 0.2 + 0.5 * 10 + 0.3 * 2,
        "this is the remaining time: return its inverse.": 1 / right,
    }
    expect.close(amdahl_speedup([0.5, 0.3], [10.0, 2.0]), right, mistakes)
    expect.close(
        amdahl_speedup([0.9], [1e12]), 10.0, name="the limit for 90 % of the time", rtol=1e-4
    )
    expect.close(amdahl_speedup([], []), 1.0, name="the result without a change")


def bounds_of_operations(roofline_seconds):
    width, peak, bandwidth = 4096, 1e15, 3e12
    for batch, bound in ((1, "memory"), (4096, "compute")):
        flops, moved = 2.0 * batch * width**2, 2.0 * (width**2 + 2 * batch * width)
        right = max(flops / peak, moved / bandwidth)
        seconds, found = expect.parts(roofline_seconds(flops, moved, peak, bandwidth), 2)
        mistakes = {
            "computing and moving overlap: take the maximum.": flops / peak + moved / bandwidth,
            "the slower of both bounds the time: take the maximum.": min(
                flops / peak, moved / bandwidth
            ),
        }
        expect.close(seconds, right, mistakes, f"the time for batch {batch}", atol=0)
        expect.equal(found, bound, name=f"the bound for batch {batch}")
    expect.equal(
        expect.parts(roofline_seconds(10.0, 5.0, 2.0, 1.0), 2)[1],
        "compute",
        {"if both take equally long the answer is compute.": "memory"},
        "the bound at the ridge",
    )


TASKS = [
    Task("ablation_effects", [effects_of_variants]),
    Task("pareto_front", [front_of_models]),
    Task("amdahl_speedup", [speedups]),
    Task("roofline_seconds", [bounds_of_operations]),
]
