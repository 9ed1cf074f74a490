"""Typical wrong solutions of day 33."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("LoRALinear", "base.requires_grad_(False)", "base", "requires_grad_(False)"),
    Mistake(
        "LoRALinear",
        "base.weight.new_zeros(base.out_features, rank)",
        "base.weight.new_ones(base.out_features, rank)",
        "B must be zero",
    ),
    Mistake("LoRALinear", ".normal_(std=1 / rank)", ".zero_()", "zero forever"),
    Mistake("LoRALinear", "alpha / rank", "alpha", "divide alpha by the rank"),
    Mistake("LoRALinear", "self.dropout(x) @", "x @", "apply nn.Dropout"),
    Mistake("merge", "alpha / len(A) * ", "", "scale the update"),
    Mistake("merge", "len(A)", "len(B)", "the number of rows of A"),
    Mistake(
        "trainable_fraction",
        "(trained + sum(p.numel() for p in net.parameters()))",
        "sum(p.numel() for p in net.parameters())",
        "denominator counts",
    ),
    Mistake(
        "trainable_fraction",
        "layer.in_features + layer.out_features",
        "layer.in_features * layer.out_features",
        "rank · in",
    ),
    Mistake("best_low_rank_update", " * S[:rank]", "", "singular values are missing"),
    Mistake(
        "best_low_rank_update",
        "V[:rank], U[:, :rank] * S[:rank]",
        "V[-rank:], U[:, -rank:] * S[-rank:]",
        "keep the largest",
    ),
]
