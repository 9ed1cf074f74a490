"""Typical wrong solutions of day 2."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("output_size", "2 * padding", "padding", "both sides"),
    Mistake("output_size", " - 1) // stride + 1", " - 1) // stride", "add 1"),
    Mistake(
        "output_size", "dilation * (kernel - 1) - 1", "dilation * kernel", "not dilation·kernel"
    ),
    Mistake("receptive_field", "(kernel - 1) * step", "kernel - 1", "strides of earlier layers"),
    Mistake("receptive_field", "(kernel - 1) * step", "kernel * step", "fields overlap"),
    Mistake(
        "im2col", "transpose(0, 2, 3, 1, 4, 5)", "transpose(0, 2, 3, 4, 5, 1)", "channels first"
    ),
    Mistake("conv2d", "weight.reshape(", "weight[..., ::-1, ::-1].reshape(", "does not flip"),
    Mistake("conv2d", ".T + bias", ".T", "bias is missing"),
    Mistake("conv2d", "outputs.transpose(0, 3, 1, 2)", "outputs", "axes (B, O, H', W')"),
    Mistake(
        "max_pool_backward",
        "np.put_along_axis(result, first, grad[..., None], axis=-1)",
        "result += (windows == windows.max(axis=-1, keepdims=True)) * grad[..., None]",
        "use argmax",
    ),
]
