"""Typical wrong solutions of day 19."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "bigram_probabilities",
        "np.add.at(counts, (tokens[:-1], tokens[1:]), 1)",
        "counts[tokens[:-1], tokens[1:]] += 1",
        "use np.add.at",
    ),
    Mistake(
        "bigram_probabilities",
        "(tokens[:-1], tokens[1:])",
        "(tokens[1:], tokens[:-1])",
        "character before",
    ),
    Mistake(
        "bigram_probabilities",
        "counts.sum(axis=1, keepdims=True)",
        "counts.sum()",
        "sum of the row",
    ),
    Mistake("mean_loss", "-np.log(", "np.log(", "negative log-likelihood"),
    Mistake("mean_loss", "np.log(", "np.log2(", "not bits"),
    Mistake("conditional_entropy", "probabilities.T", "probabilities", "left eigenvector"),
    Mistake(
        "conditional_entropy",
        "np.where(probabilities > 0, probabilities, 1)",
        "probabilities",
        "0 log 0",
    ),
    Mistake("contexts", "windows[:, -1]", "windows[:, -2]", "follows the context"),
    Mistake("contexts", "windows[:, :-1]", "windows[:, -2::-1]", "oldest character is first"),
]
