"""Typical wrong solutions of day 37."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "rebuilt_steps",
        "list(range(index, len(steps)))",
        "[i for i in range(len(steps)) if copied.get(i, set()) & changed]",
        "executed, too",
    ),
    Mistake(
        "rebuilt_steps", "range(index, len(steps))", "range(len(steps))", "come from the cache"
    ),
    Mistake(
        "find_problems",
        'image.rpartition("/")[2].partition(":")',
        'image.partition(":")',
        "port of a registry",
    ),
    Mistake("find_problems", "image not in stages and ", "", "earlier stage"),
    Mistake(
        "find_problems",
        '            user = "root"\n            image',
        "            image",
        "a new stage begins as root",
    ),
    Mistake("find_problems", "line.upper()", "line", "in any case"),
    Mistake("health", 'state, failures = "healthy", 0', 'state = "healthy"', "restarts the count"),
    Mistake("health", "failures >= retries", "failures > retries", "not one more"),
    Mistake(
        "health",
        'elif state != "starting" or index >= start_probes',
        "else",
        "start period do not count",
    ),
]
