"""Typical wrong solutions of day 6."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "linear_probe",
        "features - features.mean(axis=0), targets - targets.mean(axis=0)",
        "features, targets",
        "center the data",
    ),
    Mistake(
        "linear_probe", "x.T @ x + ridge * np.eye(x.shape[1])", "x.T @ x", "penalty is missing"
    ),
    Mistake(
        "linear_probe",
        "targets.mean(axis=0) - features.mean(axis=0) @ weight",
        "targets.mean(axis=0)",
        "mean(y) - mean(x) W",
    ),
    Mistake("train_only", 'prefix + "."', "prefix", "must not match 'layer10'"),
    Mistake(
        "train_only",
        "parameter.requires_grad_(bool(matching))",
        "if not matching:\n            parameter.requires_grad_(False)",
        "set requires_grad to True",
    ),
    Mistake("train_only", "if unused:", "if False:", "matches nothing"),
    Mistake("freeze_batch_norm", "net.modules()", "net", "inside of other modules"),
    Mistake(
        "freeze_batch_norm",
        " and not trained",
        "",
        "that is trained stays",
    ),
    Mistake("freeze_batch_norm", "module.eval()", "module.requires_grad_(False)", "call eval()"),
    Mistake("layer_groups", "decay ** (depth - index)", "decay**index", "largest rate"),
    Mistake("layer_groups", "depth - index", "depth + 1 - index", "lr itself"),
]
