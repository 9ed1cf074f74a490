"""A guard: a text classifier with the class `harmless` and one or more classes of harm."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer

from engine.checkpoint.reading import load_task
from engine.errors import UserError
from modules import Classifier
from safety.decoding import decode

HARMLESS, HARMFUL = "harmless", "harmful"
THRESHOLD = 0.5  # without a calibration, texts with at least this probability of harm are refused
OVERLAP = 4  # a window of a long text shares a fourth of its tokens with the next one


class Refusal(UserError):
    """A text that a guard refuses."""


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


def calibration_file(checkpoint: str | Path) -> Path:
    """Return the file beside a checkpoint in which safety.calibrate writes its threshold."""
    return Path(checkpoint).with_suffix(".calibration.json")


def read_threshold(checkpoint: str | Path) -> float:
    """Return the threshold of a guard: that of its calibration, or else 0.5.

    Raises:
        UserError: If the calibration cannot be read.
    """
    path = calibration_file(checkpoint)
    if not path.is_file():
        return THRESHOLD
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["threshold"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read the calibration {path}: {error!r}.") from error


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


class Guard:
    """Judges what a model is given and what it writes; long texts in overlapping windows.

    Args:
        checkpoint: Of a classifier, see `load_guard`.
        threshold: Texts with at least this probability of harm are refused; by default that of the
            guard's calibration.

    Raises:
        UserError: If the checkpoint is not a guard, or its calibration cannot be read.
    """

    def __init__(self, checkpoint: str | Path, threshold: float | None = None) -> None:
        self.model = load_guard(checkpoint)
        self.threshold = read_threshold(checkpoint) if threshold is None else threshold
        assert self.model.tokenizer is not None  # load_guard has checked it
        # A copy, because its windows overlap.
        self.tokenizer = Tokenizer.from_str(self.model.tokenizer.to_str())
        self.tokenizer.no_padding()
        if limit := self.tokenizer.truncation:
            length = limit["max_length"]
            self.tokenizer.enable_truncation(length, stride=length // OVERLAP)

    def to(self, device: torch.device) -> "Guard":
        """Move the network to a device."""
        self.model.to(device)
        return self

    def judge(self, texts: Sequence[str]) -> list[float]:
        """Return the probability of harm of each text: that of its most harmful window."""
        windows = [
            (row, window)
            for row, text in enumerate(texts)
            for variant in {text, decode(text)}  # a window of encoded text may not be decodable
            for window in self._windows(variant)
        ]
        found = [0.0] * len(texts)
        scores = harm_probabilities(self.model, [window for _, window in windows])
        for (row, _), score in zip(windows, scores, strict=True):
            found[row] = max(found[row], score)
        return found

    def check(self, text: str, what: str) -> None:
        """Raise if a text is refused.

        Args:
            text: What a model is given, or what it has written.
            what: Name of the text in the message.

        Raises:
            Refusal: If the probability of harm is at least the threshold.
        """
        (harm,) = self.judge([text])
        if harm >= self.threshold:
            raise Refusal(
                f"the guard refuses the {what}: its probability of harm is {harm:.2f}, the "
                f"threshold {self.threshold:.2f}."
            )

    def _windows(self, text: str) -> list[str]:
        encoding = self.tokenizer.encode(text)
        windows = []
        for part in (encoding, *encoding.overflowing):
            spans = [span for span in part.offsets if span[1] > span[0]]  # no special tokens
            if spans:
                windows.append(text[spans[0][0] : spans[-1][1]])
        # The text itself, where it is one window: the same input as in training.
        return windows if len(windows) > 1 else [text]
