"""Grader of day 8."""

import numpy as np
import torch

from exercises import expect
from exercises.grading import Task


def distribution_of_samples(log_uniform):
    samples = log_uniform(1e-5, 1e-1, 4000, np.random.default_rng(0))
    expect.true(
        np.shape(samples) == (4000,), f"the result has shape {np.shape(samples)}, expected (4000,)."
    )
    inside = samples.min() >= 1e-5 and samples.max() <= 1e-1
    expect.true(
        inside,
        f"the samples lie in [{samples.min():.2g}, {samples.max():.2g}].",
        "apply exp to a uniform sample between the logarithms.",
    )
    for decade, share in enumerate(
        np.histogram(np.log10(samples), bins=4, range=(-5, -1))[0] / 4000
    ):
        hint = (
            "this is the uniform distribution: 90 % lie in the last decade." if share > 0.8 else ""
        )
        hint = (
            "the first decades have almost no samples: sample the logarithm."
            if share < 0.05
            else hint
        )
        expect.true(
            abs(share - 0.25) < 0.04,
            f"decade {decade + 1} of 4 has {share:.0%} of the samples.",
            hint,
        )


def probabilities_of_random_search(probability_of_success):
    right = 1 - 0.6**3
    mistakes = {
        "this is the probability of failure.": 0.6**3,
        "probabilities do not add up: use the complement.": 1.0,
        "a trial misses with probability 1 - fraction.": 1 - 0.4**3,
    }
    expect.close(probability_of_success(3, 0.4), right, mistakes)
    expect.true(
        probability_of_success(59, 0.05) > 0.95 > probability_of_success(58, 0.05),
        "59 trials must be the first to reach 95 %.",
    )


def _density(z):
    return np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


def _distribution(z):
    return torch.special.ndtr(torch.as_tensor(z)).numpy()


def improvement_of_candidates(expected_improvement):
    mean, std, best = np.array([0.5, 1.0, 1.5]), np.array([0.2, 0.5, 1.0]), 0.9
    grid = np.linspace(-8, 8, 40_001)
    right = np.array([
        (np.maximum(best - (m + s * grid), 0) * _density(grid)).sum() * (grid[1] - grid[0])
        for m, s in zip(mean, std, strict=True)
    ])  # fmt: skip
    z = (best - mean) / std
    mistakes = {
        "lower losses are better: z = (best - μ) / σ.": (mean - best) * _distribution(-z)
        + std * _density(z),
        "this is the probability of improvement.": _distribution(z),
        "the term σ φ(z) is missing: uncertain candidates may improve.": (best - mean)
        * _distribution(z),
        "the density is multiplied by σ.": (best - mean) * _distribution(z) + _density(z),
    }
    expect.close(expected_improvement(mean, std, best), right, mistakes, rtol=1e-5, atol=1e-7)


def improvement_of_certain_candidates(expected_improvement):
    with np.errstate(all="ignore"):
        result = expected_improvement(np.array([0.5, 2.0, 1.0]), np.zeros(3), 1.0)
    hint = "where σ is 0, z is not defined: treat it apart."
    mistakes = [
        (hint, np.array([0.5, 0.0, np.nan])),
        (hint, np.array([0.5, np.nan, np.nan])),
        (hint, np.array([np.nan] * 3)),
    ]
    expect.close(result, np.array([0.5, 0.0, 0.0]), mistakes)


def _rounds(successive_halving, *arguments, **options):
    """Return the winner and the calls of the loss: candidate i approaches (i - 4)² slowly."""
    calls = []

    def loss(candidate, epochs):
        calls.append((candidate, epochs))
        return (candidate - 4) ** 2 + 10 / epochs

    return successive_halving(*arguments, loss=loss, **options), calls


def winner(successive_halving):
    best, _ = _rounds(successive_halving, list(range(9)), min_epochs=1, max_epochs=9)
    expect.equal(best, 4, [("the lowest loss is the best.", wrong) for wrong in (0, 8)])


def cost_of_the_search(successive_halving):
    _, calls = _rounds(successive_halving, list(range(9)), min_epochs=1, max_epochs=9)
    counts = {epochs: sum(call[1] == epochs for call in calls) for epochs in (1, 3, 9)}
    mistakes = {
        "keep the best third of the candidates in each round.": {1: 9, 3: 9, 9: 9},
        "one candidate is left: it needs no further training.": {1: 9, 3: 3, 9: 1},
        "a candidate is evaluated once per round.": {1: 18, 3: 6, 9: 0},
    }
    expect.equal(counts, {1: 9, 3: 3, 9: 0}, mistakes, "the number of evaluations by epochs")


def limits_of_the_search(successive_halving):
    best, calls = _rounds(successive_halving, list(range(20)), min_epochs=2, max_epochs=5, eta=2)
    expect.equal(
        sorted({epochs for _, epochs in calls}),
        [2, 4, 5],
        {"no round has more than max_epochs.": [2, 4, 8, 16]},
        "the epochs of the rounds",
    )
    expect.equal(best, 4)
    best, _ = _rounds(successive_halving, [7, 3], min_epochs=1, max_epochs=9)
    expect.equal(best, 3, name="the best of two with eta = 3")


TASKS = [
    Task("log_uniform", [distribution_of_samples]),
    Task("probability_of_success", [probabilities_of_random_search]),
    Task("expected_improvement", [improvement_of_candidates, improvement_of_certain_candidates]),
    Task("successive_halving", [winner, cost_of_the_search, limits_of_the_search]),
]
