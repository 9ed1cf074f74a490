"""Typical wrong solutions of day 5."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("linear_backward", "x.T @ dy", "x.T @ dy / len(x)", "the mean belongs to the loss"),
    Mistake("linear_backward", "x.T @ dy", "dy.T @ x", "x and dy are exchanged"),
    Mistake("linear_backward", "dy.sum(axis=0)", "dy.mean(axis=0)", "the mean belongs to the loss"),
    Mistake("relu_backward", "x > 0", "x >= 0", "use x > 0"),
    Mistake("relu_backward", "x > 0", "dy > 0", "not from dy"),
    Mistake("softmax_cross_entropy_backward", "gradient / len(labels)", "gradient", "divide by N"),
    Mistake(
        "softmax_cross_entropy_backward",
        " - scores.max(axis=1, keepdims=True)",
        "",
        "subtract the maximum",
    ),
    Mistake(
        "mlp_gradients",
        "dweights.insert(0, dweight)",
        "dweights.append(dweight)",
        "first layer first",
    ),
    Mistake(
        "mlp_gradients", "sums[-1], labels", "inputs[-1], labels", "no ReLU after the last layer"
    ),
    Mistake(
        "gradient_error",
        "function(backward)) / (2 * step)",
        "function(backward)) / step",
        "divide by 2h",
    ),
    Mistake(
        "gradient_error", "function(backward)) / (2 * step)", "function(x)) / step", "one-sided"
    ),
]
