"""Show the most likely words for a masked word in validation texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from engine.guards.requirements import require_attributes
from engine.run.figures import publish
from plotting.colored_text import Passage, passages_page, text_figure

CONTEXT_WORDS = 14  # shown on either side of the masked word
CONTINUATION = "##"  # prefix of a word piece that is not the first of its word
HEADING = "Masked-word predictions (blue: top prediction correct)"


class MaskedWords(Callback):
    """Draw `figures/masked_words.png` and `.html` after each validation, and write them as text.

    One word of at least five letters is masked in each of the first texts of the first validation
    batch, the same one in every validation. `samples/masked-words-step-<n>.txt` has the predictions
    of that step. The task needs `mask_id`, `decode_tokens(tokens)` and
    `top_predictions(inputs, positions, top)`, as modules.MaskedLanguageModel has. Texts are those
    of rank 0.

    Args:
        texts: Number of texts, at least 1.
        top: Number of predictions per text, at least 1.
    """

    def __init__(self, texts: int = 8, top: int = 5) -> None:
        if texts < 1 or top < 1:
            raise ValueError(f"MaskedWords: texts and top must be at least 1, got {texts}, {top}.")
        self.texts = texts
        self.top = top
        self.passages: list[Passage] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        names = ("mask_id", "decode_tokens", "top_predictions")
        require_attributes(self, pl_module, *names, such_as="modules.MaskedLanguageModel")

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
        texts = [task.decode_tokens(row) for row in tokens[: self.texts].tolist()]
        positions = [masked_position(pieces) for pieces in texts]
        index = torch.tensor(positions, device=tokens.device)[:, None]  # (N, 1)
        masked = {name: tensor[: self.texts] for name, tensor in inputs.items()}
        masked["input_ids"] = tokens[: self.texts].scatter(1, index, task.mask_id)  # (N, T)
        top = task.top_predictions(masked, index, self.top)
        self.passages = [
            masked_passage(pieces, position, task.decode_tokens(words[0].tolist()), values[0])
            for pieces, position, words, values in zip(
                texts, positions, top.indices, top.values, strict=True
            )
        ]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or not self.passages:
            return
        passages, self.passages = self.passages, []
        publish(trainer, "masked_words", lambda: text_figure(HEADING, passages))
        folder = trainer.log_dir  # a collective
        if not trainer.is_global_zero or folder is None:
            return
        page = Path(folder, "figures", "masked_words.html")
        page.write_text(passages_page(HEADING, passages), encoding="utf-8")
        path = Path(folder, "samples", f"masked-words-step-{trainer.global_step}.txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        blocks = [f"{passage.title}\n{' '.join(bracket_masked(passage))}\n" for passage in passages]
        path.write_text("\n".join(blocks), encoding="utf-8")


def bracket_masked(passage: Passage) -> list[str]:
    """Return the words of a passage, with the masked one in brackets."""
    weights = passage.weights or [0.0] * len(passage.words)
    return [f"[{w}]" if masked else w for w, masked in zip(passage.words, weights, strict=True)]


def masked_position(pieces: Sequence[str]) -> int:
    """Return the position nearest to the middle of a word of at least five letters."""
    middle = len(pieces) // 2
    words = [
        position
        for position, (piece, following) in enumerate(zip(pieces, [*pieces[1:], ""], strict=True))
        if piece.isalpha() and len(piece) >= 5 and not following.startswith(CONTINUATION)
    ]
    return min(words or range(len(pieces)), key=lambda position: abs(position - middle))


def masked_passage(
    pieces: Sequence[str], position: int, predictions: Sequence[str], probabilities: Tensor
) -> Passage:
    """Return the words around a masked word, titled with its predictions (most likely first)."""
    words: list[str] = []
    weights: list[float] = []
    for index, piece in enumerate(pieces):
        if piece.startswith(CONTINUATION) and words:
            words[-1] += piece.removeprefix(CONTINUATION)
            weights[-1] = max(weights[-1], float(index == position))
        else:
            words.append(piece)
            weights.append(float(index == position))
    center = weights.index(1.0)
    window = slice(max(0, center - CONTEXT_WORDS), center + CONTEXT_WORDS + 1)
    pairs = zip(predictions, probabilities.tolist(), strict=True)
    title = "predicted " + ", ".join(f"{word} ({p:.0%})" for word, p in pairs)
    is_correct = predictions[0] == pieces[position]
    return Passage(title, is_correct, words[window], weights[window])
