"""Grader of day 2."""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from exercises import expect
from exercises.grading import Task


def output_sizes(output_size):
    mistakes = {"padding is added on both sides.": 26, "the last position counts, too: add 1.": 27}
    expect.equal(output_size(28, 5, padding=2), 28, mistakes)
    expect.equal(output_size(7, 3), 5, {"the last position counts, too: add 1.": 4})


def output_sizes_with_stride_and_dilation(output_size):
    for size, kernel, stride, padding, dilation in [
        (28, 5, 2, 2, 1),
        (7, 2, 2, 0, 1),
        (9, 3, 2, 1, 3),
    ]:
        layer = torch.nn.Conv1d(1, 1, kernel, stride, padding, dilation)
        right = layer(torch.zeros(1, 1, size)).shape[-1]
        reach = dilation * (kernel - 1) + 1
        mistakes = {
            "a position that does not fit is left out: round down.": -(
                -(size + 2 * padding - reach) // stride
            )
            + 1,
            "a dilated kernel covers dilation·(kernel - 1) + 1 inputs.": (
                size + 2 * padding - kernel
            )
            // stride
            + 1,
            "a dilated kernel covers dilation·(kernel - 1) + 1 inputs, not dilation·kernel.": (
                size + 2 * padding - dilation * kernel
            )
            // stride
            + 1,
        }
        mistakes = {hint: wrong for hint, wrong in mistakes.items() if wrong != right}
        expect.equal(output_size(size, kernel, stride, padding, dilation), right, mistakes)


def _measured_field(layers):
    """Return the number of inputs with a gradient of the output in the middle."""
    signal = torch.zeros(1, 1, 200, dtype=torch.float64, requires_grad=True)
    outputs = signal
    for kernel, stride in layers:
        outputs = F.conv1d(outputs, torch.ones(1, 1, kernel, dtype=torch.float64), stride=stride)
    outputs[0, 0, outputs.shape[-1] // 2].backward()
    return int((signal.grad != 0).sum())


def receptive_fields_of_stacked_layers(receptive_field):
    expect.equal(receptive_field([(3, 1), (3, 1)]), _measured_field([(3, 1), (3, 1)]),
                 {"a kernel of 3 adds 2, not 3: fields overlap.": 7})  # fmt: skip
    expect.equal(receptive_field([]), 1)


def receptive_fields_with_strides(receptive_field):
    layers = [(3, 1), (2, 2), (5, 1), (2, 2), (3, 1)]
    mistakes = {
        "strides of earlier layers widen the steps of later ones.": 11,
        "a layer's own stride acts on the layers after it only.": 1 + 2 + 2 + 8 + 4 + 8,
    }
    expect.equal(receptive_field(layers), _measured_field(layers), mistakes)


def _patches(images, kernel, stride, padding):
    columns = F.unfold(torch.from_numpy(images), kernel, padding=padding, stride=stride)
    size = (images.shape[2] + 2 * padding - kernel) // stride + 1
    return columns.transpose(1, 2).reshape(len(images), size, -1, columns.shape[1]).numpy()


def patches(im2col):
    images = expect.normal(2, 3, 6, 6)
    right = _patches(images, 3, 1, 0)
    channels_last = right.reshape(*right.shape[:3], 3, 9).swapaxes(-1, -2).reshape(right.shape)
    mistakes = {"flatten a patch in the order C, K, K: channels first.": channels_last}
    expect.close(im2col(images, 3), right, mistakes)


def patches_with_stride_and_padding(im2col):
    images = expect.normal(2, 1, 6, 6)
    for stride, padding in [(2, 0), (1, 1), (2, 2)]:
        expect.close(im2col(images, 2, stride, padding), _patches(images, 2, stride, padding))


def _convolution(images, weight, bias, **options):
    return F.conv2d(*(torch.from_numpy(x) for x in (images, weight, bias)), **options).numpy()


def convolution(conv2d):
    images, weight, bias = (
        expect.normal(2, 3, 6, 6),
        expect.normal(4, 3, 3, 3, seed=1),
        expect.normal(4, seed=2),
    )
    right = _convolution(images, weight, bias)
    mistakes = {
        "a CNN does not flip its kernel.": _convolution(
            images, weight[..., ::-1, ::-1].copy(), bias
        ),
        "the bias is missing.": right - bias[:, None, None],
        "the result has the axes (B, O, H', W').": right.transpose(0, 2, 3, 1),
    }
    expect.close(conv2d(images, weight, bias), right, mistakes)


def convolution_with_stride_and_padding(conv2d):
    arguments = expect.normal(2, 2, 7, 7), expect.normal(3, 2, 3, 3, seed=1), np.zeros(3)
    for stride, padding in [(2, 0), (1, 1), (2, 1)]:
        right = _convolution(*arguments, stride=stride, padding=padding)
        expect.close(conv2d(*arguments, stride=stride, padding=padding), right)


def convolution_time(conv2d):
    arguments = expect.normal(4, 8, 28, 28), expect.normal(8, 8, 3, 3), np.zeros(8)
    hint = "use im2col and one matrix product instead of loops over pixels."
    expect.faster_than(0.1, partial(conv2d, *arguments, padding=1), hint)


def gradient_of_pooling(max_pool_backward):
    images, grad = expect.normal(2, 3, 4, 6), expect.normal(2, 3, 2, 3, seed=1)

    def loss(x):
        return (x.reshape(2, 3, 2, 2, 3, 2).max(axis=(3, 5)) * grad).sum()

    right = expect.numerical_gradient(loss, images)
    everywhere = grad.repeat(2, 2).repeat(2, 3)
    mistakes = {
        "only the maximum of a window receives the gradient.": everywhere,
        "divide by size² for average-pooling, not here.": everywhere / 4,
    }
    expect.close(max_pool_backward(grad, images, 2), right, mistakes, rtol=1e-5, atol=1e-7)


def gradient_of_equal_maxima(max_pool_backward):
    right = np.zeros((1, 1, 3, 3))
    right[0, 0, 0, 0] = 2.0
    images = np.zeros((1, 1, 3, 3))
    hint = "of equal maxima only the first one receives the gradient: use argmax."
    mistakes = {hint: np.full_like(right, 2.0)}
    expect.close(max_pool_backward(np.full((1, 1, 1, 1), 2.0), images, 3), right, mistakes)


TASKS = [
    Task("output_size", [output_sizes, output_sizes_with_stride_and_dilation]),
    Task("receptive_field", [receptive_fields_of_stacked_layers, receptive_fields_with_strides]),
    Task("im2col", [patches, patches_with_stride_and_padding]),
    Task("conv2d", [convolution, convolution_with_stride_and_padding, convolution_time]),
    Task("max_pool_backward", [gradient_of_pooling, gradient_of_equal_maxima]),
]
