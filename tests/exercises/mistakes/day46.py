"""Typical wrong solutions of day 46."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("chain", "enumerate(steps, start=1)", "enumerate(steps)", "from 1"),
    Mistake("chain", "raise\n", "return None\n", "raise it on"),
    Mistake(
        "ask_until_valid",
        'current = f"{prompt}\\n\\n{answer}\\n\\nError: {error}"',
        "pass",
        "answer and the error",
    ),
    Mistake("ask_until_valid", 'current = f"{prompt}', 'current = f"{current}', "it would grow"),
    Mistake("ask_until_valid", "attempts == 0", "attempts < 0", "after 2 failures"),
    Mistake("trim_history", "budget -= sum(sizes[:first])", "pass", "counts for the budget"),
    Mistake("trim_history", 'messages[start]["role"] != "user"', "False", "without its question"),
    Mistake(
        "trim_history",
        "return messages[:first] + messages[start:]",
        "return messages[start:]",
        "always stays",
    ),
    Mistake("run_agent", "if name not in tools", "if False", "observation of its own"),
    Mistake(
        "run_agent",
        "decide(list(observations))",
        "decide(observations[-1:])",
        "not the last one only",
    ),
]
