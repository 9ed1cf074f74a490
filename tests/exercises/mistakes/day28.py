"""Typical wrong solutions of day 28."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "CharacterTokenizer",
        "sorted(set(text))",
        "list(dict.fromkeys(text))",
        "sort the characters",
    ),
    Mistake("CharacterTokenizer", "if character not in self.ids", "if False", "ValueError"),
    Mistake("validation_loss", "net.eval()", "pass", "call net.eval()"),
    Mistake("validation_loss", "net.train(training)", "net.train()", "restore the mode"),
    Mistake("validation_loss", "total / (len(tokens) - 1)", "total / len(tokens)", "N - 1"),
    Mistake("early_stopping", ">= patience", "> patience", "not one later"),
    Mistake(
        "early_stopping", "losses[best_epoch] - min_delta", "losses[best_epoch]", "exceed min_delta"
    ),
    Mistake(
        "early_stopping",
        "if loss < losses[best_epoch] - min_delta",
        "if loss <= losses[best_epoch] - min_delta",
        "no improvement",
    ),
]
