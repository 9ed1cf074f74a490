"""Write translations beside their sources and references."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from engine.guards.requirements import require_attributes

TEXTS = ("source", "reference", "translation")
Triple = tuple[str, str, str]


class Translations(L.Callback):
    """Write `samples/step-<n>.txt` after each validation, and `samples/test.txt` after a test.

    The former has a few sentences, evenly spaced from the shortest to the longest, the same ones
    each time; the latter has all, below their scores and sacreBLEU's signatures. Sentences are
    those of rank 0. The task needs a `validation_step` and a `test_step` that return the texts
    `sources`, `references` and `translations`, as modules.Translator has.

    Args:
        sentences: Number of sentences per validation, at least 1.
    """

    def __init__(self, sentences: int = 10) -> None:
        if sentences < 1:
            raise ValueError(f"Translations: sentences must be at least 1, got {sentences}.")
        self.sentences = sentences
        self.triples: list[Triple] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        require_attributes(self, pl_module, "translate", such_as="modules.Translator")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.triples = []

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.triples = []

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any
    ) -> None:
        self._collect(outputs)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any
    ) -> None:
        self._collect(outputs)

    def _collect(self, outputs: Any) -> None:
        texts = outputs if isinstance(outputs, Mapping) else {}
        self.triples += zip(*(texts.get(f"{name}s", ()) for name in TEXTS), strict=True)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking or not self.triples:
            return
        number = min(self.sentences, len(self.triples))
        indices = np.linspace(0, len(self.triples) - 1, number).round().astype(int)
        chosen = [self.triples[index] for index in indices]
        self._write(trainer, f"step-{trainer.global_step}.txt", [], chosen)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.triples:
            rank_zero_warn(
                f"Translations writes nothing: the test_step of {type(pl_module).__name__} does "
                "not return sources, references and translations. Remove the callback from "
                "trainer.callbacks."
            )
            return
        signatures: Mapping[str, str] = getattr(pl_module, "signatures", {})
        scores = [
            f"{name} {float(trainer.callback_metrics[f'test/{name}']):.2f}  {signature}"
            for name, signature in signatures.items()
            if f"test/{name}" in trainer.callback_metrics
        ]
        self._write(trainer, "test.txt", scores, self.triples)

    def _write(
        self, trainer: L.Trainer, name: str, header: Sequence[str], triples: Sequence[Triple]
    ) -> None:
        folder = trainer.log_dir  # a collective
        if not trainer.is_global_zero or folder is None:
            return
        path = Path(folder, "samples", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        blocks = ["\n".join(header)] if header else []
        blocks += [
            "\n".join(f"{kind:<12} {text}" for kind, text in zip(TEXTS, triple, strict=True))
            for triple in triples
        ]
        path.write_text("\n\n".join(blocks) + "\n", "utf-8")
