"""Grader of day 45."""

import numpy as np
import torch
import torch.nn.functional as F

from exercises import expect
from exercises.grading import Task


def _statistics(scores):
    maximum = scores.max(axis=-1)
    return maximum, np.exp(scores - maximum[..., None]).sum(axis=-1)


def statistics_of_two_blocks(merge_statistics):
    scores = 3 * expect.normal(4, 10)
    first, second = _statistics(scores[:, :4]), _statistics(scores[:, 4:])
    maximum, total = expect.parts(merge_statistics(first, second), 2)
    right = _statistics(scores)
    mistakes = {
        "rescale both sums to the common maximum.": first[1] + second[1],
        "rescale both sums, also the first one.": first[1]
        + second[1] * np.exp(second[0] - right[0]),
        "the sums are relative to their maximum: multiply by exp(m - m_new).": (
            first[1] * np.exp(right[0] - first[0]) + second[1] * np.exp(right[0] - second[0])
        ),
    }
    expect.close(maximum, right[0], name="the maximum")
    expect.close(total, right[1], mistakes, "the sum")


def statistics_of_large_scores(merge_statistics):
    scores = np.array([[1e4, 1e4 - 1, -1e4]])
    parts = merge_statistics(_statistics(scores[:, :1]), _statistics(scores[:, 1:]))
    hint = "exp overflows; use differences to the common maximum only."
    with np.errstate(all="ignore"):
        expect.close(
            expect.parts(parts, 2)[1], _statistics(scores)[1], {hint: np.array([np.inf])}, "the sum"
        )


def statistics_of_empty_blocks(merge_statistics):
    empty, full = (np.array([-np.inf]), np.array([0.0])), (np.array([2.0]), np.array([1.5]))
    with np.errstate(all="ignore"):
        total = expect.parts(merge_statistics(empty, full), 2)[1]
        both = expect.parts(merge_statistics(empty, empty), 2)[1]
    expect.close(total, np.array([1.5]), name="the sum with an empty block")
    expect.close(
        both,
        np.array([0.0]),
        {"-inf - (-inf) is nan.": np.array([np.nan])},
        "the sum of two empty blocks",
    )


def _attention(query, key, value, **options):
    tensors = (torch.from_numpy(x)[None] for x in (query, key, value))
    return F.scaled_dot_product_attention(*tensors, **options)[0].numpy()


def attention_in_blocks(tiled_attention):
    query, key, value = (
        3 * expect.normal(5, 4),
        expect.normal(10, 4, seed=1),
        expect.normal(10, 3, seed=2),
    )
    right = _attention(query, key, value)
    blocks = [slice(i, i + 4) for i in range(0, 10, 4)]
    mean = np.mean([_attention(query, key[b], value[b]) for b in blocks], axis=0)
    mistakes = {
        "divide the scores by √D.": _attention(query, key, value, scale=1.0),
        "the last block may be smaller.": _attention(query, key[:8], value[:8]),
        "blocks have different sums: normalize once, at the end.": mean,
    }
    expect.close(tiled_attention(query, key, value, 4), right, mistakes)
    expect.close(
        tiled_attention(query, key, value, 100), right, mistakes, "the result with one block"
    )


def attention_with_growing_scores(tiled_attention):
    query, key, value = np.ones((2, 4)), np.arange(8.0)[:, None] * np.ones(4), expect.normal(8, 3)
    hint = "rescale sum and output when the maximum grows."
    try:
        expect.close(tiled_attention(query, key, value, 2), _attention(query, key, value))
        with np.errstate(all="ignore"):
            large = tiled_attention(query, 500 * key, value, 2)
        expect.close(
            large, _attention(query, 500 * key, value), name="the result for scores of 7000"
        )
    except expect.Wrong as error:
        raise expect.Wrong(str(error), hint) from error


def causal_attention(tiled_attention):
    query, key, value = (
        expect.normal(7, 4),
        expect.normal(7, 4, seed=1),
        expect.normal(7, 3, seed=2),
    )
    with np.errstate(all="ignore"):
        result = tiled_attention(query, key, value, 3, causal=True)
    inside = np.stack(
        [
            _attention(
                query[t : t + 1],
                key[[j for j in range(7) if j % 3 <= t]],
                value[[j for j in range(7) if j % 3 <= t]],
            )[0]
            for t in range(7)
        ]
    )
    mistakes = {
        "the mask is missing.": _attention(query, key, value),
        "add the start of the block to the positions of the keys.": inside,
    }
    expect.close(result, _attention(query, key, value, is_causal=True), mistakes)


def memory_of_attention(tiled_attention):
    query = key = value = expect.normal(800, 16)
    hint = "an array of all scores has 5 MB; keep one block of them."
    expect.less_memory_than(3, lambda: tiled_attention(query, key, value, 64), hint)


def rounded_numbers(round_to_bfloat16):
    x = (expect.normal(500) * 10.0 ** (4 * expect.normal(500, seed=1))).astype(np.float32)
    right = torch.from_numpy(x).bfloat16().float().numpy()
    cut = (x.view(np.uint32) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    mistakes = {"round to the nearest number; do not cut off the lower bits.": cut}
    result = expect.unchanged(round_to_bfloat16, x)
    expect.close(result, right, mistakes, rtol=0, atol=0)
    expect.true(
        result.dtype == np.float32, f"the result has dtype {result.dtype}, expected float32."
    )


def ties_to_even(round_to_bfloat16):
    x = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8, 0.0, 3.4e38], dtype=np.float32)
    right = torch.from_numpy(x).bfloat16().float().numpy()
    up = right.copy()
    up[0], up[2] = 1 + 2.0**-7, -1 - 2.0**-7
    hint = "a tie goes to the even neighbor: add 0x7FFF and the lowest kept bit."
    expect.close(round_to_bfloat16(x), right, {hint: up}, rtol=0, atol=0)


def scales_of_a_run(LossScaler):
    scaler = LossScaler(8.0, growth_interval=3)
    overflows = [False, False, True, False, False, False, False, True, True, False]
    steps = [scaler.update(overflow) for overflow in overflows]
    expect.equal(steps, [not overflow for overflow in overflows], name="the steps that are taken")
    scaler, scales = LossScaler(8.0, growth_interval=3), []
    for overflow in overflows:
        scaler.update(overflow)
        scales.append(scaler.scale)
    mistakes = {
        "an overflow restarts the count of good steps.": [
            8.0,
            8.0,
            4.0,
            8.0,
            8.0,
            8.0,
            16.0,
            8.0,
            4.0,
            4.0,
        ],
        "the count restarts after the scale was doubled.": [
            8.0,
            8.0,
            4.0,
            4.0,
            4.0,
            8.0,
            16.0,
            8.0,
            4.0,
            4.0,
        ],
        "double after growth_interval good steps, not one later.": [
            8.0,
            8.0,
            4.0,
            4.0,
            4.0,
            4.0,
            8.0,
            4.0,
            2.0,
            2.0,
        ],
    }
    right = [8.0, 8.0, 4.0, 4.0, 4.0, 8.0, 8.0, 4.0, 2.0, 2.0]
    expect.equal(scales, right, mistakes, "the scale after each step")


TASKS = [
    Task(
        "merge_statistics",
        [statistics_of_two_blocks, statistics_of_large_scores, statistics_of_empty_blocks],
    ),
    Task(
        "tiled_attention",
        [attention_in_blocks, attention_with_growing_scores, causal_attention, memory_of_attention],
    ),
    Task("round_to_bfloat16", [rounded_numbers, ties_to_even]),
    Task("LossScaler", [scales_of_a_run]),
]
