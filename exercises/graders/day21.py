"""Grader of day 21."""

import numpy as np
import torch
import torch.nn.functional as F

from exercises import expect
from exercises.grading import Task


def normalized_rows(layer_norm):
    x, gamma, beta = (
        2 * expect.normal(3, 4, 5) + 1,
        expect.normal(5, seed=1),
        expect.normal(5, seed=2),
    )
    right = F.layer_norm(
        torch.from_numpy(x), (5,), torch.from_numpy(gamma), torch.from_numpy(beta)
    ).numpy()
    centered = x - x.mean(-1, keepdims=True)
    batch = (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + 1e-5)
    everything = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    mistakes = {
        "normalize over the last axis; over the others it is batch norm.": gamma * batch + beta,
        "each position has its own mean and variance.": gamma * everything + beta,
        "divide the variance by D, not by D - 1.": gamma
        * centered
        / np.sqrt(x.var(-1, ddof=1, keepdims=True) + 1e-5)
        + beta,
        "divide by the root of the variance.": gamma * centered / (x.var(-1, keepdims=True) + 1e-5)
        + beta,
    }
    expect.close(expect.unchanged(layer_norm, x, gamma, beta), right, mistakes)


def constant_rows(layer_norm):
    with np.errstate(all="ignore"):
        found = layer_norm(np.ones((2, 3)), np.ones(3), np.zeros(3))
    expect.close(
        found, np.zeros((2, 3)), {"add eps to the variance: 0 / 0 is nan.": np.full((2, 3), np.nan)}
    )


def gradients_of_layer_norm(layer_norm_backward):
    dy, x, gamma = (
        expect.normal(4, 5),
        2 * expect.normal(4, 5, seed=1) + 1,
        expect.normal(5, seed=2),
    )
    tensors = [torch.from_numpy(a).requires_grad_() for a in (x, gamma, np.zeros(5))]
    F.layer_norm(tensors[0], (5,), tensors[1], tensors[2]).backward(torch.from_numpy(dy))
    right = [t.grad.numpy() for t in tensors]
    std = np.sqrt(x.var(1, keepdims=True) + 1e-5)
    n = (x - x.mean(1, keepdims=True)) / std
    outside = gamma / std * (dy - dy.mean(1, keepdims=True) - n * (dy * n).mean(1, keepdims=True))
    g = dy * gamma
    mistakes = {
        "gamma differs within a row: it belongs inside of the means.": outside,
        "mean and variance depend on x: two terms are missing.": g / std,
        "the term of the variance is missing.": (g - g.mean(1, keepdims=True)) / std,
        "the means are over the row, axis 1.": (g - g.mean(0) - n * (g * n).mean(0)) / std,
    }
    found = expect.parts(layer_norm_backward(dy, x, gamma), 3)
    expect.close(found[0], right[0], mistakes, "dx")
    expect.close(
        found[1], right[1], {"dgamma needs the normalized input.": (dy * x).sum(0)}, "dgamma"
    )
    expect.close(found[2], right[2], {"sum over the batch.": dy.mean(0)}, "dbeta")


def values_of_positions(sinusoidal_positions):
    length, width = 7, 6
    right = np.zeros((length, width))
    for t in range(length):
        for i in range(width // 2):
            angle = t / 10000 ** (2 * i / width)
            right[t, 2 * i], right[t, 2 * i + 1] = np.sin(angle), np.cos(angle)
    halves = np.concatenate([right[:, 0::2], right[:, 1::2]], axis=1)
    wrong = np.zeros_like(right)
    for t in range(length):
        for i in range(width // 2):
            angle = t / 10000 ** (i / width)
            wrong[t, 2 * i], wrong[t, 2 * i + 1] = np.sin(angle), np.cos(angle)
    mistakes = {
        "sine and cosine alternate.": halves,
        "the exponent is 2i / D for pair i.": wrong,
        "sine is in the even columns.": right.reshape(length, -1, 2)[:, :, ::-1].reshape(
            length, width
        ),
    }
    expect.close(sinusoidal_positions(length, width), right, mistakes)


def positions_rotate(sinusoidal_positions):
    p = sinusoidal_positions(50, 8)
    products = (p[:-5] * p[5:]).sum(1)
    expect.close(
        products, np.full(45, products[0]), name="the product of positions at distance 5", atol=1e-9
    )


def _block(EncoderBlock):
    torch.manual_seed(0)
    block = EncoderBlock(8, 2).double().eval()
    for norm in (block.norm1, block.norm2):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    mask = torch.tensor([[True, True, True, True, False], [True, True, True, False, False]])
    return block, expect.randn(2, 5, 8), mask


def _output(block, x, mask, pre=True, residual=True, activation=F.gelu):
    def attend(y):
        return block.attention(y, y, y, key_padding_mask=mask)[0]

    def feed(y):
        return block.linear2(activation(block.linear1(y)))

    if not pre:
        x = block.norm1(x + attend(x))
        return block.norm2(x + feed(x))
    x = residual * x + attend(block.norm1(x))
    return residual * x + feed(block.norm2(x))


def output_of_a_block(EncoderBlock):
    block, x, mask = _block(EncoderBlock)
    mistakes = {
        "normalize before each part, not after (pre-norm).": _output(block, x, ~mask, pre=False),
        "add the input of each part.": _output(block, x, ~mask, residual=0),
        "key_padding_mask of PyTorch is True for padding: invert the mask.": _output(
            block, x, mask
        ),
        "the mask is missing.": _output(block, x, None),
        "use GELU, not ReLU.": _output(block, x, ~mask, activation=F.relu),
    }
    expect.close(block(x, mask), _output(block, x, ~mask), mistakes)


def padding_has_no_effect(EncoderBlock):
    block, x, mask = _block(EncoderBlock)
    changed = x.clone()
    changed[1, 3:] = 9.0
    hint = "pass the mask to the attention."
    same = torch.allclose(block(changed, mask)[mask], block(x, mask)[mask])
    expect.true(same, "padding changes the outputs of words.", hint)


TASKS = [
    Task("layer_norm", [normalized_rows, constant_rows]),
    Task("layer_norm_backward", [gradients_of_layer_norm]),
    Task("sinusoidal_positions", [values_of_positions, positions_rotate]),
    Task("EncoderBlock", [output_of_a_block, padding_has_no_effect]),
]
