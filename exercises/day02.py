"""Day 2: convolution, max-pooling and receptive fields."""

import numpy as np


def output_size(
    size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1
) -> int:
    """Return the width of a convolution's output.

    Count the positions at which the dilated kernel, of width dilation·(kernel - 1) + 1, lies inside
    the padded input.

    Source: Dumoulin & Visin 2016, A guide to convolution arithmetic (arXiv:1603.07285).
    """
    raise NotImplementedError


def receptive_field(layers: list[tuple[int, int]]) -> int:
    """Return how many input pixels (in one dimension) an output of the last layer depends on.

    Derive the recursion: a layer of kernel k adds k - 1 steps of its input, and a step of its input
    is the product of all earlier strides in pixels of the image.

    Args:
        layers: (kernel, stride) of each convolution or pooling layer, first layer first.

    Source: Araujo, Norris & Sim 2019, Computing receptive fields of convolutional neural networks.
    """
    raise NotImplementedError


def im2col(images: np.ndarray, kernel: int, stride: int = 1, padding: int = 0) -> np.ndarray:
    """Return the patches of images as rows, so that a convolution is one matrix product.

    Args:
        images: Array of shape (B, C, H, W).
        kernel: Height and width K of a patch.
        stride: Step between patches.
        padding: Rows and columns of zeros on each side.

    Returns:
        Array of shape (B, H', W', C·K·K); a patch is flattened in the order C, K, K.

    Source: Chellapilla, Puri & Simard 2006, High performance convolutional neural networks for
        document
    processing.
    """
    raise NotImplementedError


def conv2d(
    images: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int = 1, padding: int = 0
) -> np.ndarray:
    """Return the convolution of a CNN, which is the cross-correlation of mathematics.

        y[b, o, i, j] = bias[o] + Σ_c,u,v weight[o, c, u, v] · x[b, c, i·stride + u, j·stride + v]

    Only loops over the kernel's positions are fast enough.

    Args:
        images: Array of shape (B, C, H, W).
        weight: Array of shape (O, C, K, K).
        bias: Array of shape (O,).
        stride: Step between outputs.
        padding: Rows and columns of zeros on each side.

    Returns:
        Array of shape (B, O, H', W').
    """
    raise NotImplementedError


def max_pool_backward(grad: np.ndarray, images: np.ndarray, size: int) -> np.ndarray:
    """Return the gradient of max-pooling, windows of `size` x `size` without overlap.

    Only the maximum of a window receives its gradient; of equal maxima the first one, row by row,
    as in PyTorch.

    Args:
        grad: Gradient of the output, (B, C, H/size, W/size).
        images: Input of the forward pass, (B, C, H, W); H and W are multiples of `size`.
        size: Height and width of a window.

    Returns:
        Gradient of the input, (B, C, H, W).
    """
    raise NotImplementedError
