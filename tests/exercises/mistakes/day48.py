"""Typical wrong solutions of day 48."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("depends_on_the_future", "net.eval()", "pass", "use net.eval()"),
    Mistake("depends_on_the_future", "net.train(training)", "pass", "restore its mode"),
    Mistake(
        "depends_on_the_future", "range(1, tokens.shape[1])", "range(1, 3)", "check every position"
    ),
    Mistake(
        "depends_on_the_future",
        "before[:, :position], after[:, :position]",
        "before[:, : position - 1], after[:, : position - 1]",
        "right before",
    ),
    Mistake("mixes_samples", "net(inputs)", "net.eval()(inputs)", "do not change the mode"),
    Mistake(
        "mixes_samples",
        "return True\n    return False",
        "return True\n        return False\n    return False",
        "check every sample",
    ),
    Mistake(
        "untrained_parameters",
        "gradient is None or not gradient.any()",
        "gradient is None",
        "gradient of zeros",
    ),
    Mistake(
        "untrained_parameters",
        "gradient is None or not gradient.any()",
        "gradient is not None and not gradient.any()",
        "(None) counts",
    ),
    Mistake("steps_to_overfit", "return step\n", "return step + 1\n", "before the loss"),
    Mistake("steps_to_overfit", "optimizer.step()", "pass", "target is not reached"),
]
