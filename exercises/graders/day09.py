"""Grader of day 9."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from exercises import expect
from exercises.grading import Task


def std_of_weights(he_std):
    mistakes = {
        "a ReLU halves the second moment: the factor 2 is missing.": math.sqrt(1 / 288),
        "return the standard deviation, not the variance.": 2 / 288,
        "this is the bound of a uniform distribution.": math.sqrt(6 / 288),
    }
    expect.close(he_std(288), math.sqrt(2 / 288), mistakes)
    mistakes = {
        "(1 + a²) belongs to the denominator.": math.sqrt(2 * 1.04 / 50),
        "the slope is squared.": math.sqrt(2 / (1.2 * 50)),
    }
    expect.close(he_std(50, 0.2), math.sqrt(2 / (1.04 * 50)), mistakes, "the result for slope 0.2")


def variance_through_many_layers(he_std):
    x = expect.normal(64, 256)
    for layer in range(12):
        x = np.maximum(x @ (he_std(256) * expect.normal(256, 256, seed=layer + 1)), 0)
    moment = float((x**2).mean())
    expect.true(
        0.3 < moment < 3, f"after 12 layers the mean square is {moment:.2g}, expected about 1."
    )


def _block(ResidualBlock, *arguments):
    torch.manual_seed(0)
    block = ResidualBlock(*arguments)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return block.eval()


def output_of_an_identity_block(ResidualBlock):
    block, x = _block(ResidualBlock, 4, 4), expect.randn(2, 4, 6, 6, dtype=torch.float32)
    expect.true(
        not list(block.shortcut.parameters()),
        "the shortcut has parameters.",
        "equal shapes need the identity only.",
    )
    inner = block.norm2(block.conv2(F.relu(block.norm1(block.conv1(x)))))
    mistakes = {
        "add the shortcut before the last ReLU.": F.relu(inner) + x,
        "the last ReLU is missing.": inner + x,
        "the shortcut is missing.": F.relu(inner),
        "there is a ReLU between the convolutions.": F.relu(
            block.norm2(block.conv2(block.norm1(block.conv1(x)))) + x
        ),
    }
    expect.close(block(x), F.relu(inner + x), mistakes, rtol=1e-4, atol=1e-5)


def output_of_a_projecting_block(ResidualBlock):
    for arguments in ((3, 6, 2), (4, 4, 2), (3, 6, 1)):
        block, x = (
            _block(ResidualBlock, *arguments),
            expect.randn(2, arguments[0], 8, 8, dtype=torch.float32),
        )
        inner = block.norm2(block.conv2(F.relu(block.norm1(block.conv1(x)))))
        expect.close(block(x), F.relu(inner + block.shortcut(x)), rtol=1e-4, atol=1e-5)
        count = sum(p.numel() for p in block.parameters())
        i, o, _ = arguments
        right = 9 * i * o + 9 * o * o + 4 * o + i * o + 2 * o
        mistakes = {
            "a convolution before a batch norm needs no bias.": right + 3 * o,
            "the projection has a batch norm, too.": right - 2 * o,
            "the projection is a 1x1 convolution.": right + 8 * i * o,
        }
        expect.equal(
            count, right, mistakes, f"the number of parameters of ResidualBlock{arguments}"
        )


def costs(convolution_costs):
    mistakes = {
        "multiply-adds are parameters times positions of the output.": (
            9 * 64 * 128,
            9 * 64 * 128 * 14,
        )
    }
    expect.equal(convolution_costs(64, 128, 3, 14), (9 * 64 * 128, 9 * 64 * 128 * 196), mistakes)
    right = (9 * 64, 9 * 64 * 196)
    mistakes = {
        "a group sees in_channels / groups inputs.": (9 * 64 * 64, 9 * 64 * 64 * 196),
        "only the inputs of a group are divided, not the outputs, too.": (9, 9 * 196),
    }
    expect.equal(
        convolution_costs(64, 64, 3, 14, 64),
        right,
        mistakes,
        "the costs of a depthwise convolution",
    )


def folded_convolution(fold_batch_norm):
    conv = nn.Conv2d(3, 5, 3).double()
    norm = nn.BatchNorm2d(5).double().eval()
    for number, tensor in enumerate((norm.weight, norm.bias, norm.running_mean)):
        tensor.data.copy_(expect.randn(5, seed=number))
    norm.running_var.copy_(expect.randn(5, seed=4) ** 2 + 0.1)
    x = expect.randn(2, 3, 7, 7)
    for bias in (conv.bias, None):
        plain = torch.zeros(5, dtype=torch.float64) if bias is None else bias
        right = norm(F.conv2d(x, conv.weight, plain))
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        scaled = conv.weight * scale[:, None, None, None]
        mistakes = {
            "scale the bias of the convolution, too.": F.conv2d(
                x, scaled, plain - norm.running_mean * scale + norm.bias
            ),
            "subtract the running mean.": F.conv2d(x, scaled, plain * scale + norm.bias),
            "add the bias of the batch norm.": F.conv2d(
                x, scaled, (plain - norm.running_mean) * scale
            ),
        }
        weight, new_bias = expect.parts(fold_batch_norm(conv.weight, bias, norm), 2)
        name = "the output without bias" if bias is None else "the output"
        expect.close(F.conv2d(x, weight, new_bias), right, mistakes, name)


TASKS = [
    Task("he_std", [std_of_weights, variance_through_many_layers]),
    Task("ResidualBlock", [output_of_an_identity_block, output_of_a_projecting_block]),
    Task("convolution_costs", [costs]),
    Task("fold_batch_norm", [folded_convolution]),
]
