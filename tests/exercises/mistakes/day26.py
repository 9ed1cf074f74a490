"""Typical wrong solutions of day 26."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "encode_pair",
        "[0] * (a + 2) + [1] * (b + 1)",
        "[0] * (a + 1) + [1] * (b + 2)",
        "belongs to segment 0",
    ),
    Mistake("encode_pair", "if a > b", "if b == 0", "shorten the longer"),
    Mistake("encode_pair", "if a > b", "if a >= b", "equally long"),
    Mistake("mask_tokens", " & ~special", "", "special tokens are chosen"),
    Mistake("mask_tokens", "kind < 0.8", "kind < 2.0", "only 80 %"),
    Mistake("mask_tokens", "kind >= 0.9", "kind >= 0.8", "tokens stay"),
    Mistake(
        "mask_tokens",
        "torch.where(chosen, tokens, -100)",
        "torch.where(chosen, inputs, -100)",
        "original tokens",
    ),
    Mistake(
        "masked_loss", "max(1, int(chosen.sum()))", "targets.numel()", "number of chosen positions"
    ),
    Mistake(
        "masked_loss", "max(1, int(chosen.sum()))", "int(chosen.sum()) * torch.ones(())", "is nan"
    ),
    Mistake("masked_loss", " + bias", "", "bias is missing"),
]
