"""Typical wrong solutions of day 45."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "merge_statistics",
        "first[1] * np.exp(first[0] - finite) + second[1] * np.exp(second[0] - finite)",
        "first[1] + second[1]",
        "common maximum",
    ),
    Mistake("merge_statistics", "np.where(np.isinf(maximum), 0, maximum)", "maximum", "is nan"),
    Mistake(
        "tiled_attention", "output = output * rescale", "output = output", "when the maximum grows"
    ),
    Mistake(
        "tiled_attention",
        "start + np.arange(scores.shape[1])",
        "np.arange(scores.shape[1])",
        "start of the block",
    ),
    Mistake("tiled_attention", " / np.sqrt(query.shape[1])", "", "divide the scores by √D"),
    Mistake(
        "tiled_attention",
        "range(0, len(key), block)",
        "range(0, len(key), len(key)) if (block := len(key)) else ()",
        "keep one block",
    ),
    Mistake("round_to_bfloat16", "bits + 0x7FFF + even", "bits", "do not cut off"),
    Mistake("round_to_bfloat16", "0x7FFF + even", "0x8000", "even neighbor"),
    Mistake(
        "LossScaler",
        "self.scale /= 2\n            self.good_steps = 0",
        "self.scale /= 2",
        "restarts the count",
    ),
    Mistake("LossScaler", "== self.growth_interval", "> self.growth_interval", "not one later"),
]
