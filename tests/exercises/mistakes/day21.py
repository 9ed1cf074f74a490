"""Typical wrong solutions of day 21."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "layer_norm",
        "x.var(axis=-1, keepdims=True) + eps",
        "x.var(axis=-1, keepdims=True)",
        "add eps",
    ),
    Mistake(
        "layer_norm",
        "np.sqrt(x.var(axis=-1, keepdims=True) + eps)",
        "np.sqrt(x.var(axis=-1, ddof=1, keepdims=True) + eps)",
        "not by D - 1",
    ),
    Mistake("layer_norm_backward", "- projection", "", "term of the variance"),
    Mistake(
        "layer_norm_backward",
        "(dy * normalized).sum(axis=0)",
        "(dy * x).sum(axis=0)",
        "normalized input",
    ),
    Mistake(
        "layer_norm_backward",
        "dx = (scaled - scaled.mean(axis=1, keepdims=True) - projection) / std",
        "dx = gamma / std * (dy - dy.mean(axis=1, keepdims=True) - normalized * (dy * normalized).mean(axis=1, keepdims=True))",
        "inside of the means",
    ),
    Mistake(
        "sinusoidal_positions",
        "np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, width)",
        "np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)",
        "alternate",
    ),
    Mistake("sinusoidal_positions", "np.arange(0, width, 2)", "np.arange(width // 2)", "2i / D"),
    Mistake("EncoderBlock", "key_padding_mask=~mask", "key_padding_mask=mask", "invert the mask"),
    Mistake("EncoderBlock", "key_padding_mask=~mask, ", "", "mask is missing"),
    Mistake("EncoderBlock", "F.gelu(", "F.relu(", "not ReLU"),
]
