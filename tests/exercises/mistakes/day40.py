"""Typical wrong solutions of day 40."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "fit_temperature",
        "return 1 / math.sqrt(low * high)",
        "return math.sqrt(low * high)",
        "this is 1 / T",
    ),
    Mistake("workers_needed", " / utilization", "", "leave room"),
    Mistake("workers_needed", "math.ceil(", "int(", "round up"),
    Mistake(
        "LeastRecentlyUsed",
        "        self.entries.move_to_end(key)\n        return",
        "        return",
        "get counts as a use",
    ),
    Mistake(
        "LeastRecentlyUsed",
        "        self.entries.move_to_end(key)\n        if",
        "        if",
        "putting a key again",
    ),
    Mistake("LeastRecentlyUsed", "popitem(last=False)", "popitem()", "not the last"),
    Mistake(
        "CircuitBreaker",
        "self.failures, self.opened = 0, None",
        "self.opened = None",
        "restarts the count",
    ),
    Mistake("CircuitBreaker", "self.trying or now", "now", "only one call"),
    Mistake(
        "CircuitBreaker",
        "                self.opened = now",
        "                self.opened = self.opened or now",
        "from then on",
    ),
]
