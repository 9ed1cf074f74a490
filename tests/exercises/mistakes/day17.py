"""Typical wrong solutions of day 17."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("self_attention", " / key.shape[-1] ** 0.5", "", "divide the scores"),
    Mistake("self_attention", "key.shape[-1]", "x.shape[-1]", "not of the inputs"),
    Mistake("self_attention", "softmax(dim=-1)", "softmax(dim=1)", "over the keys"),
    Mistake(
        "split_heads",
        "x.reshape(batch, length, num_heads, width // num_heads).transpose(1, 2)",
        "x.reshape(batch, num_heads, length, width // num_heads)",
        "then transpose",
    ),
    Mistake("split_heads", "if width % num_heads", "if False", "divide the width"),
    Mistake("attention_costs", "2 * length**2 * width", "length**2 * width", "two products"),
    Mistake("attention_costs", "num_heads * length**2", "length**2", "its own scores"),
    Mistake("noam_learning_rate", "min(", "max(", "take the minimum"),
    Mistake("noam_learning_rate", "step = max(step, 1)", "pass", "step 0 counts"),
]
