"""Typical wrong solutions of day 16."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "additive_scores",
        "np.tanh((query @ w_q)[:, None] + keys @ w_k)",
        "np.tanh((query @ w_q)[:, None]) + np.tanh(keys @ w_k)",
        "add before tanh",
    ),
    Mistake(
        "additive_scores", "(query @ w_q)[:, None] + keys", "(query @ w_q) + keys", "its own query"
    ),
    Mistake(
        "additive_scores",
        "np.tanh((query @ w_q)[:, None] + keys @ w_k)",
        "(query @ w_q)[:, None] + keys @ w_k",
        "tanh is missing",
    ),
    Mistake("general_scores", "query @ weight", "query @ weight.T", "query · W · key"),
    Mistake(
        "general_scores",
        "(keys @ (query @ weight)[:, :, None])[:, :, 0]",
        "keys @ (query @ weight).T",
        "its own query",
    ),
    Mistake("attend", "np.where(mask, scores, -np.inf)", "scores", "mask is missing"),
    Mistake("attend", "np.where(mask, scores, -np.inf)", "scores * mask", "not 0"),
    Mistake("attend", " - allowed.max(axis=1, keepdims=True)", "", "subtract the maximum"),
    Mistake(
        "softmax_backward",
        "weights * (grad - (grad * weights).sum(axis=1, keepdims=True))",
        "grad * weights * (1 - weights)",
        "only the diagonal",
    ),
    Mistake("softmax_backward", "(grad * weights).sum(axis=1", "grad.sum(axis=1", "weighted by p"),
]
