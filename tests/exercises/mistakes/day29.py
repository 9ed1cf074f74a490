"""Typical wrong solutions of day 29."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "accumulate_gradients",
        'reduction="sum"\n        )\n        (loss / number)',
        'reduction="mean"\n        )\n        (loss / len(batches))',
        "means of means",
    ),
    Mistake(
        "accumulate_gradients",
        "(loss / number).backward()",
        "loss.backward()",
        "divide by their number",
    ),
    Mistake(
        "accumulate_gradients",
        "int((targets != ignore_index).sum())",
        "targets.numel()",
        "do not count",
    ),
    Mistake("update_ema", "1 - decay", "decay", "weight of the old average"),
    Mistake("update_ema", "copy.copy_(buffer)", "pass", "copy buffers, too"),
    Mistake(
        "update_ema",
        "mean.lerp_(parameter, 1 - decay)",
        "mean = decay * mean + (1 - decay) * parameter",
        "work in place",
    ),
    Mistake("checkpoint", "Checkpoint.apply(function, x)", "function(x)", "records a graph"),
    Mistake("checkpoint", "x = x.detach().requires_grad_()", "pass", "give it one"),
]
