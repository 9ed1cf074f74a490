"""Typical wrong solutions of day 44."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "expected_calibration_error", "np.abs(gaps).sum()", "abs(gaps.sum())", "before the sum"
    ),
    Mistake(
        "expected_calibration_error",
        "np.abs(gaps).sum()",
        "np.abs(correct - confidence).sum()",
        "mean of each bin",
    ),
    Mistake("filter_threshold", "safe >= threshold", "safe > threshold", "use >="),
    Mistake("filter_threshold", "scores[~unsafe]", "scores", "safe prompts only"),
    Mistake("filter_threshold", "<= max_false_positives", "< max_false_positives", "use <="),
    Mistake("wilson_interval", "scale = 1 + z**2 / trials", "scale = 1", "divide by 1 + z²"),
    Mistake(
        "wilson_interval",
        "scale = 1 + z**2 / trials",
        "scale, center = 1, rate\n    half = z * math.sqrt(rate * (1 - rate) / trials)",
        "normal interval",
    ),
    Mistake(
        "pass_at_k",
        "1 - math.comb(samples - correct, k) / math.comb(samples, k)",
        "1 - (1 - correct / samples) ** k",
        "without replacement",
    ),
    Mistake("pass_at_k", "1 - math", "math", "none is correct"),
    Mistake("cohen_kappa", "(observed - chance) / (1 - chance)", "observed", "agreement by chance"),
    Mistake(
        "cohen_kappa",
        "chance = sum(counts[label] * others[label] for label in counts) / n**2",
        "chance = 1 / len(counts)",
        "how often each judge",
    ),
]
