"""Typical wrong solutions of day 49."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "ablation_effects",
        "differences.std(ddof=1) / np.sqrt(len(differences))",
        "np.sqrt((np.var(values, ddof=1) + reference.var(ddof=1)) / len(values))",
        "paired by seed",
    ),
    Mistake("ablation_effects", "std(ddof=1)", "std()", "n - 1"),
    Mistake("ablation_effects", " / np.sqrt(len(differences))", "", "smaller by √n"),
    Mistake("pareto_front", " and other != (cost, accuracy)", "", "dominate itself"),
    Mistake(
        "pareto_front",
        "other[0] <= cost and other[1] >= accuracy",
        "other[0] < cost and other[1] > accuracy",
        "same accuracy",
    ),
    Mistake(
        "pareto_front", "(models[name][0], name)", "(-models[name][0], name)", "cheapest model"
    ),
    Mistake("amdahl_speedup", "1 - sum(fractions) + ", "", "rest of the time"),
    Mistake("amdahl_speedup", "1 / (1 - sum", "(1 - sum", "return its inverse"),
    Mistake("roofline_seconds", "max(compute, memory)", "compute + memory", "take the maximum"),
    Mistake("roofline_seconds", "compute >= memory", "compute > memory", "equally long"),
]
