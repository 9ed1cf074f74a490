"""Typical wrong solutions of day 31."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("read_safetensors", 'if name == "__metadata__"', "if False", "not a tensor"),
    Mistake(
        "read_safetensors",
        "data[start + begin : start + end]",
        "data[8 + begin : 8 + end]",
        "end of the header",
    ),
    Mistake(
        "rename_weights",
        "name = name.replace(old, new)",
        "if old in name:\n                name = name.replace(old, new)\n                break",
        "one after the other",
    ),
    Mistake("rename_weights", "if name in renamed", "if False", "would be lost"),
    Mistake(
        "position_ids",
        "(mask.cumsum(dim=1) - 1).clamp(min=0)",
        "mask.cumsum(dim=1) - 1",
        "not be negative",
    ),
    Mistake(
        "position_ids", "(mask.cumsum(dim=1) - 1).clamp(min=0)", "mask.cumsum(dim=1)", "position 0"
    ),
    Mistake(
        "mean_pooling",
        "(hidden * weights).sum(dim=1) / weights.sum(dim=1)",
        "hidden.mean(dim=1)",
        "padding must not count",
    ),
    Mistake("mean_pooling", "torch.nn.functional.normalize(means, dim=1)", "means", "length 1"),
]
