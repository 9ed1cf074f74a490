"""Typical wrong solutions of day 4."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "momentum_step",
        "velocity + gradient",
        "velocity + (1 - momentum) * gradient",
        "without the factor",
    ),
    Mistake(
        "momentum_step",
        "gradient + momentum * velocity if nesterov else velocity",
        "velocity",
        "Nesterov steps",
    ),
    Mistake("momentum_step", "lr * update", "lr * gradient", "new velocity"),
    Mistake("rmsprop_step", "np.sqrt(square) + eps", "square + eps", "root of the mean square"),
    Mistake("rmsprop_step", "(np.sqrt(square) + eps)", "np.sqrt(square)", "add eps"),
    Mistake("adamw_step", " / (1 - betas[0] ** step)", "", "correction of the mean is missing"),
    Mistake("adamw_step", " / (1 - betas[1] ** step)", "", "correction of the square is missing"),
    Mistake("adamw_step", "+ weight_decay * weight", "", "subtract lr · weight_decay · w"),
    Mistake(
        "adamw_step",
        "mean = betas[0] * mean",
        "gradient = gradient + weight_decay * weight\n    weight_decay = 0.0\n    mean = betas[0] * mean",
        "Adam would rescale it",
    ),
    Mistake("largest_learning_rate", "2 /", "1 /", "not 1 / λ"),
    Mistake("largest_learning_rate", "[-1]", "[0]", "largest eigenvalue"),
    Mistake(
        "heavy_ball_parameters",
        "((large - small) / (large + small)) ** 2",
        "(large - small) / (large + small)",
        "square",
    ),
]
