"""Typical wrong solutions of day 25."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "random_windows",
        "len(tokens) - context,",
        "len(tokens) - context - 1,",
        "window at the end",
    ),
    Mistake("random_windows", "windows[:, 1:]", "windows[:, :-1]", "shifted by one"),
    Mistake(
        "random_windows", "len(tokens) - context,", "len(tokens) - context + 1,", "last target"
    ),
    Mistake(
        "warmup_cosine",
        "(step - warmup) / (total_steps - warmup)",
        "step / total_steps",
        "end of the warm-up",
    ),
    Mistake(
        "warmup_cosine",
        "min(1.0, (step - warmup) / (total_steps - warmup))",
        "(step - warmup) / (total_steps - warmup)",
        "rise again",
    ),
    Mistake("warmup_cosine", "(step + 1)", "step", "not 0"),
    Mistake(
        "decay_groups",
        "parameter.ndim >= 2",
        "parameter.ndim >= 1",
        "norms and biases do not decay",
    ),
    Mistake("decay_groups", "if parameter.requires_grad", "", "leave out frozen"),
    Mistake("training_flops", "6 * parameters", "2 * parameters", "multiply-add"),
    Mistake("training_flops", " + 12 * layers * width * context", "", "term of attention"),
]
