"""What does the net believe to stand behind a mask? The likeliest words, in texts that validate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from engine.run.figures import publish
from plotting.colored_text import Passage, passages_page, text_figure

AROUND = 14  # words shown on either side of the hidden one
CONTINUES = "##"  # begins a piece that goes on with the word before
HEADING = "What stands behind the colour? Blue: the likeliest word is the right one"


class MaskedWords(Callback):
    """Draws `figures/masked_words.png` and `.html` after each validation, and keeps each as a text.

    In the first texts of the first validation batch one whole word of five letters or more is
    hidden, in every validation the same one, and the likeliest words are named above the text.
    `samples/masked-words-step-<n>.txt` shows how they change. The task must have `words(tokens)`
    and `top_predictions(inputs, places, top)`, as MaskedLanguageModel has. Of several processes, the
    first one's texts are drawn.

    Args:
        texts: How many texts to draw, at least 1.
        top: How many words to name, at least 1.
    """

    def __init__(self, texts: int = 8, top: int = 5) -> None:
        if texts < 1 or top < 1:
            raise ValueError(f"texts and top must be at least 1, not {texts} and {top}.")
        self.texts = texts
        self.top = top
        self.passages: list[Passage] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not hasattr(pl_module, "top_predictions") or not hasattr(pl_module, "mask_id"):
            raise MisconfigurationException(
                "MaskedWords needs a task that guesses words, as modules.MaskedLanguageModel "
                f"does; {type(pl_module).__name__} does not: leave the callback out."
            )

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx:
            return
        inputs, tokens = batch
        task = cast(Any, pl_module)
        rows = tokens[: self.texts].tolist()
        pieces = [task.decode_tokens(row) for row in rows]
        places = [place_of_a_word(text) for text in pieces]
        where = torch.tensor(places, device=tokens.device)[:, None]  # (N, 1)
        hidden = {name: tensor[: self.texts] for name, tensor in inputs.items()}
        hidden["input_ids"] = tokens[: self.texts].scatter(1, where, task.mask_id)  # (N, T)
        found = task.top_predictions(hidden, where, self.top)
        self.passages = [
            passage(text, place, task.decode_tokens(words[0].tolist()), sure[0])
            for text, place, words, sure in zip(
                pieces, places, found.indices, found.values, strict=True
            )
        ]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or not self.passages:
            return
        passages, self.passages = self.passages, []
        publish(trainer, "masked_words", lambda: text_figure(HEADING, passages))
        folder = trainer.log_dir  # a broadcast: every process must ask
        if not trainer.is_global_zero or folder is None:
            return
        page = Path(folder, "figures", "masked_words.html")
        page.write_text(passages_page(HEADING, passages), encoding="utf-8")
        path = Path(folder, "samples", f"masked-words-step-{trainer.global_step}.txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        told = [f"{one.title}\n{' '.join(in_brackets(one))}\n" for one in passages]
        path.write_text("\n".join(told), encoding="utf-8")


def in_brackets(one: Passage) -> list[str]:
    """The words of a passage, the hidden one in brackets."""
    weights = one.weights or [0.0] * len(one.words)
    return [f"[{w}]" if hidden else w for w, hidden in zip(one.words, weights, strict=True)]


def place_of_a_word(pieces: Sequence[str]) -> int:
    """Where the whole word of five letters or more stands that is nearest to the middle."""
    middle = len(pieces) // 2
    whole = [
        n
        for n, (piece, after) in enumerate(zip(pieces, [*pieces[1:], ""], strict=True))
        if piece.isalpha() and len(piece) >= 5 and not after.startswith(CONTINUES)
    ]
    return min(whole or range(len(pieces)), key=lambda n: abs(n - middle))


def passage(pieces: Sequence[str], place: int, guesses: Sequence[str], sure: Tensor) -> Passage:
    """A text around a hidden word, pieces joined, titled with what the net takes it for."""
    words: list[str] = []
    weights: list[float] = []
    for number, piece in enumerate(pieces):
        if piece.startswith(CONTINUES) and words:
            words[-1] += piece.removeprefix(CONTINUES)
            weights[-1] = max(weights[-1], float(number == place))  # a part of it is hidden
        else:
            words.append(piece)
            weights.append(float(number == place))
    at = weights.index(1.0)
    shown = slice(max(0, at - AROUND), at + AROUND + 1)
    said = ", ".join(f"{word} {p:.0%}" for word, p in zip(guesses, sure.tolist(), strict=True))
    return Passage(said, guesses[0] == pieces[place], words[shown], weights[shown])
