"""Typical wrong solutions of day 15."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("sequence_loss", ", ignore_index=pad", "", "padding does not count"),
    Mistake("sequence_loss", "ignore_index=pad", "ignore_index=0", "not 0"),
    Mistake(
        "sequence_loss",
        "ignore_index=pad)",
        'ignore_index=pad, reduction="sum") / targets.numel()',
        "not of positions",
    ),
    Mistake(
        "greedy_decode",
        "        if best == eos:\n            break\n        tokens.append(best)",
        "        tokens.append(best)\n        if best == eos:\n            break",
        "not part of the result",
    ),
    Mistake(
        "greedy_decode",
        "len(tokens) < max_length",
        "len(tokens) <= max_length",
        "stop after max_length",
    ),
    Mistake("beam_search", "extended[:beam_size]", "extended[:1]", "not of one"),
    Mistake(
        "beam_search", "(total / length**alpha, tokens[:-1])", "(total, tokens[:-1])", "alpha = 1"
    ),
    Mistake(
        "beam_search",
        "total + log_prob, [*tokens, token]",
        "log_prob, [*tokens, token]",
        "beam that holds everything",
    ),
]
