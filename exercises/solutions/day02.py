"""Solutions of day 2."""

import numpy as np


def output_size(
    size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1
) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def receptive_field(layers: list[tuple[int, int]]) -> int:
    field, step = 1, 1
    for kernel, stride in layers:
        field += (kernel - 1) * step
        step *= stride
    return field


def im2col(images: np.ndarray, kernel: int, stride: int = 1, padding: int = 0) -> np.ndarray:
    padded = np.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride].transpose(0, 2, 3, 1, 4, 5)  # (B, H', W', C, K, K)
    return windows.reshape(*windows.shape[:3], -1)


def conv2d(
    images: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int = 1, padding: int = 0
) -> np.ndarray:
    patches = im2col(images, weight.shape[-1], stride, padding)  # (B, H', W', CKK)
    outputs = patches @ weight.reshape(len(weight), -1).T + bias  # (B, H', W', O)
    return outputs.transpose(0, 3, 1, 2)


def max_pool_backward(grad: np.ndarray, images: np.ndarray, size: int) -> np.ndarray:
    batch, channels, height, width = images.shape
    windows = images.reshape(batch, channels, height // size, size, width // size, size)
    windows = windows.transpose(0, 1, 2, 4, 3, 5).reshape(*grad.shape, size * size)
    result = np.zeros_like(windows)
    first = windows.argmax(axis=-1)[..., None]
    np.put_along_axis(result, first, grad[..., None], axis=-1)
    result = result.reshape(*grad.shape, size, size).transpose(0, 1, 2, 4, 3, 5)
    return result.reshape(images.shape)
