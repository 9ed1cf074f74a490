"""Typical wrong solutions of day 42."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "chunk",
        "        if start + size >= len(tokens):\n            break\n",
        "",
        "lies inside the one before",
    ),
    Mistake("chunk", "size - overlap", "size", "size - overlap tokens later"),
    Mistake("chunk", "len(tokens), size", "len(tokens) - size + 1, size", "end of the document"),
    Mistake("chunk", "0 <= overlap < size", "True", "ValueError for overlap"),
    Mistake("select_passages", "return sorted(chosen)", "return chosen", "document order"),
    Mistake(
        "select_passages",
        "budget -= lengths[index]",
        "budget -= lengths[index]\n        else:\n            break",
        "skip a passage",
    ),
    Mistake("select_passages", "<= budget", "< budget", "fits exactly"),
    Mistake("answer_f1", 'word not in ("a", "an", "the")', "word", "remove a, an and the"),
    Mistake("answer_f1", "if letter not in string.punctuation", "", "remove punctuation"),
    Mistake(
        "answer_f1",
        "(found & right).total()",
        "sum(found[word] for word in found if word in right)",
        "as often as in both",
    ),
    Mistake(
        "abstention_threshold",
        "scores >= threshold",
        "(scores > threshold) | (scores == scores.max())",
        "use >=",
    ),
    Mistake(
        "abstention_threshold", "np.unique(scores)", "np.unique(scores)[::-1]", "smallest threshold"
    ),
    Mistake("abstention_threshold", 'float("inf")', "float(scores.max())", "return inf"),
]
