"""Typical wrong solutions of day 30."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("cache_bytes", "2 * layers", "layers", "factor 2"),
    Mistake("cache_bytes", " * bytes_each", " * 2", "use bytes_each"),
    Mistake("fit_power_law", "float(-slope)", "float(slope)", "negative slope"),
    Mistake(
        "fit_power_law", "float(np.exp(intercept))", "float(intercept)", "exp of the intercept"
    ),
    Mistake("fit_power_law", "np.log(losses)", "losses", "logarithms of both"),
    Mistake("scored_windows", "(begin, end, scored)", "(begin, end, begin)", "score a token once"),
    Mistake(
        "scored_windows", "        if end == length:\n            break\n", "", "ends with the text"
    ),
    Mistake(
        "scored_windows",
        "range(0, length, stride)",
        "range(0, length, context)",
        "begin `stride` tokens",
    ),
]
