"""Typical wrong solutions of day 38."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("flatten", "elif name in result", "elif False", "would be lost"),
    Mistake(
        "flatten", 'f"{name}.{key}" if name else str(key)', "str(key)", "names of outer levels"
    ),
    Mistake("best_run", 'run["status"] == "finished" and ', "", "only finished"),
    Mistake("best_run", '1 if mode == "min" else -1', "1", "mode is max"),
    Mistake(
        "best_run",
        'math.isnan(run["metrics"].get(metric, math.nan))',
        'metric not in run["metrics"]',
        "nan is not the best",
    ),
    Mistake(
        "Registry",
        "versions.pop()\n        return versions[-1]",
        "version = versions[-1] - 1\n        versions.append(version)\n        return version",
        "promotion before",
    ),
    Mistake(
        "Registry",
        "if versions[-1:] != [version]:\n            versions.append(version)",
        "versions.append(version)",
        "promoting a version again",
    ),
    Mistake("Registry", "1 <= version <=", "0 <= version <=", "version 0"),
    Mistake(
        "Registry",
        "versions.pop()\n        return versions[-1]",
        "versions.append(versions[-2])\n        return versions[-1]",
        "not forth",
    ),
]
