"""Grader of day 34."""

import numpy as np

from exercises import expect
from exercises.grading import Task


def rows_of_8_bits(quantize_rows):
    weight = expect.normal(4, 30) * np.array([[1.0], [10], [0.01], [3]])
    q, scale = expect.parts(expect.unchanged(quantize_rows, weight), 2)
    right = np.abs(weight).max(1, keepdims=True) / 127
    mistakes = {
        "each row has its own scale.": np.full((4, 1), np.abs(weight).max() / 127),
        "the scale uses the largest absolute value.": weight.max(1, keepdims=True) / 127,
        "the largest integer is 127.": np.abs(weight).max(1, keepdims=True) / 128,
        "the scale is max / 127, not 127 / max.": 1 / right,
    }
    expect.close(scale, right, mistakes, "the scale")
    expect.true(q.dtype == np.int8, f"the integers have dtype {q.dtype}, expected int8.")
    cut = (weight / right).astype(np.int8)
    expect.close(
        q,
        np.round(weight / right),
        {"round to the nearest integer; astype cuts off.": cut},
        "the integers",
    )


def rows_of_zeros(quantize_rows):
    with np.errstate(all="ignore"):
        q, scale = expect.parts(quantize_rows(np.array([[0.0, 0.0], [1.0, -2.0]])), 2)
    finite = np.isfinite(scale).all() and (scale[0] == 1).all()
    expect.true(
        finite,
        f"the scale of a row of zeros is {scale[0]}, expected 1.",
        "0 / 0 is nan: treat such rows apart.",
    )
    expect.close(q, np.round(np.array([[0, 0], [63.5, -127]])), name="the integers")


def groups_of_4_bits(quantize_groups):
    weight = expect.normal(3, 16) + 1
    q, scale, low = expect.parts(quantize_groups(weight, 8), 3)
    grouped = weight.reshape(3, 2, 8)
    right = (grouped.max(2) - grouped.min(2)) / 15
    mistakes = {
        "4 bits have 16 values, and so 15 steps.": right * 15 / 16,
        "the scale divides the range, max - min.": np.abs(grouped).max(2) / 15,
        "groups are adjacent weights of a row.": (lambda g: (g.max(2) - g.min(2)) / 15)(
            weight.reshape(3, 8, 2).swapaxes(1, 2)
        ),
    }
    expect.close(scale, right, mistakes, "the scales")
    expect.close(
        low,
        grouped.min(2),
        {"the minimum of the group, not of its absolute values.": np.abs(grouped).min(2)},
        "the minima",
    )
    expect.true(
        q.shape == (3, 16) and q.max() <= 15,
        f"the integers have shape {q.shape} and maximum {q.max()}.",
    )
    restored = low[:, :, None] + scale[:, :, None] * q.reshape(3, 2, 8)
    error = np.abs(restored - grouped) / scale[:, :, None]
    expect.true(
        error.max() < 0.5 + 1e-6,
        f"the largest error is {error.max():.2f} steps, expected at most 0.5.",
        "subtract the minimum, and round to the nearest integer.",
    )


def constant_groups(quantize_groups):
    weight = np.full((1, 4), 0.7)
    with np.errstate(all="ignore"):
        q, scale, low = expect.parts(quantize_groups(weight, 4), 3)
    restored = low + scale * q
    expect.close(
        restored,
        weight,
        {"0 / 0 is nan: a constant group has scale 1.": np.full((1, 4), np.nan)},
        "the restored weights",
    )


def _rotated(x, positions, base=10000.0):
    half = x.shape[1] // 2
    z = (x[:, :half] + 1j * x[:, half:]) * np.exp(
        1j * positions[:, None] * base ** (-2 * np.arange(half) / x.shape[1])
    )
    return np.concatenate([z.real, z.imag], axis=1)


def rotated_values(rotate):
    x, positions = expect.normal(5, 6), np.array([0, 1, 2, 7, 100])
    pairs = np.stack([x[:, 0::2], x[:, 1::2]], axis=1).reshape(5, 6)
    adjacent = _rotated(pairs, positions).reshape(5, 2, 3).swapaxes(1, 2).reshape(5, 6)
    mistakes = {
        "the pairs are (i, i + D/2), not (2i, 2i + 1).": adjacent,
        "rotate in the positive direction: x cos - y sin first.": _rotated(x, -positions),
        "the exponent is -2i / D.": _rotated(x, positions, 100.0),
    }
    expect.close(rotate(x, positions), _rotated(x, positions), mistakes)


def products_depend_on_distance(rotate):
    q, k = expect.normal(1, 8), expect.normal(1, 8, seed=1)
    products = [
        float((rotate(q, np.array([p + 3])) * rotate(k, np.array([p]))).sum()) for p in (0, 5, 40)
    ]
    expect.close(
        np.array(products),
        np.full(3, products[0]),
        name="the product at distance 3 (positions 0, 5 and 40)",
    )
    expect.close(rotate(q, np.array([0])), q, name="the result for position 0")


def memory_of_stages(training_bytes):
    found = np.array([float(training_bytes(1000, 4, stage)) for stage in range(4)])
    right = np.array([16000.0, 7000.0, 5500.0, 4000.0])
    mistakes = {
        "a sharded part is divided by the number of devices.": np.array([16000.0, 4000, 2000, 0]),
        "stage 1 shards the optimizer state, not the gradients.": np.array(
            [16000.0, 14500, 13000, 4000]
        ),
        "the optimizer state has 12 bytes per parameter, with the float32 weight.": np.array(
            [12000.0, 6000, 4500, 3000]
        ),
    }
    expect.close(found, right, mistakes, "the memory of the stages 0 to 3")


TASKS = [
    Task("quantize_rows", [rows_of_8_bits, rows_of_zeros]),
    Task("quantize_groups", [groups_of_4_bits, constant_groups]),
    Task("rotate", [rotated_values, products_depend_on_distance]),
    Task("training_bytes", [memory_of_stages]),
]
