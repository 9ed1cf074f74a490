"""A guard: a text classifier with the class `harmless` and one or more classes of harm."""

from collections.abc import Sequence
from pathlib import Path

from engine.checkpoint.reading import load_task
from engine.errors import UserError
from modules import Classifier
from safety.decoding import decode

HARMLESS, HARMFUL = "harmless", "harmful"
THRESHOLD = 0.5  # prompts with at least this probability of harm are refused


def load_guard(path: str | Path) -> Classifier:
    """Load the checkpoint of a guard.

    Raises:
        UserError: If it is not a classifier of texts with the classes `harmless` and `harmful`.
    """
    guard = load_task(path, Classifier, "configs/safety/guard.yaml")
    advice = "Train one with configs/safety/guard.yaml."
    missing = [name for name in (HARMLESS, HARMFUL) if name not in guard.class_names]
    if missing:
        raise UserError(
            f"{path} is not a guard: it has the classes {', '.join(guard.class_names)}, and no "
            f"class {missing[0]!r}. {advice}"
        )
    if guard.tokenizer is None:
        raise UserError(f"{path} is not a guard: it does not take texts. {advice}")
    return guard.eval()


def harm_probabilities(
    guard: Classifier, texts: Sequence[str], batch_size: int = 32
) -> list[float]:
    """Return the probability of any class but `harmless` for each text, in [0, 1].

    Of a text with base64 or leetspeak, the greater one of the text and the decoded text.

    Args:
        guard: From `load_guard`.
        texts: Prompts or outputs of a model; only the first tokens are read, as many as in
            training.
        batch_size: Texts of similar length that are classified at a time.
    """
    variants = [
        (row, variant) for row, text in enumerate(texts) for variant in {text, decode(text)}
    ]
    variants.sort(key=lambda pair: len(pair[1]))
    harmless = guard.class_names.index(HARMLESS)
    found = [0.0] * len(texts)
    for start in range(0, len(variants), batch_size):
        rows, batch = zip(*variants[start : start + batch_size], strict=True)
        probabilities = guard.probabilities(list(batch))[:, harmless]  # (B,)
        for row, p in zip(rows, probabilities.tolist(), strict=True):
            found[row] = max(found[row], 1 - p)
    return found
