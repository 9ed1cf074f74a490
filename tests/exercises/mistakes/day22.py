"""Typical wrong solutions of day 22."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("causal_mask", "tril(keys - queries)", "tril()", "shift the diagonal"),
    Mistake("causal_mask", "tril(keys - queries)", "tril(keys - queries - 1)", "attends to itself"),
    Mistake("causal_mask", "tril(keys - queries)", "triu(keys - queries)", "later ones are not"),
    Mistake("attention", " / query.shape[-1] ** 0.5", "", "divide the scores by √D"),
    Mistake("attention", "~mask & some", "~mask", "treat such rows apart"),
    Mistake("attention", '~mask & some, float("-inf")', "~mask, 0.0", "not 0"),
    Mistake(
        "attention",
        "(scores.softmax(dim=-1) * some) @ value",
        "scores.softmax(dim=-1) @ value",
        "still attends",
    ),
    Mistake("cross_attention", " @ weights[3]", "", "W_o is missing"),
    Mistake(
        "cross_attention",
        "unflatten(-1, (num_heads, -1)).transpose(1, 2)",
        "reshape(len(y), num_heads, y.shape[1], -1)",
        "reshape and transpose",
    ),
    Mistake(
        "teacher_forcing", "torch.cat([first, targets[:, :-1]], dim=1)", "targets", "shift by one"
    ),
    Mistake(
        "teacher_forcing",
        "targets != pad",
        "torch.cat([first, targets[:, :-1]], dim=1) != pad",
        "belongs to the targets",
    ),
]
