"""What the translator writes by now, beside the source and the reference."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

TEXTS = ("source", "reference", "translation")
Triple = tuple[str, str, str]


class Translations(L.Callback):
    """Writes `samples/step-<n>.txt` after each validation, and `samples/test.txt` after a test.

    The first has a few sentences, evenly spaced from the shortest to the longest, the same ones
    each time; the second has all, under their scores and sacreBLEU's signatures. Of several
    processes, the first one's sentences are written. The task's `validation_step` and `test_step`
    must return the texts `sources`, `references` and `translations`, as modules.Translator's do.

    Args:
        sentences: How many a validation shows, at least 1.
    """

    def __init__(self, sentences: int = 10) -> None:
        if sentences < 1:
            raise ValueError(f"sentences must be at least 1, not {sentences}.")
        self.sentences = sentences
        self.seen: list[Triple] = []

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seen = []

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seen = []

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any
    ) -> None:
        self._keep(outputs)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any
    ) -> None:
        self._keep(outputs)

    def _keep(self, outputs: Any) -> None:
        found = outputs if isinstance(outputs, Mapping) else {}
        self.seen += zip(*(found.get(f"{name}s", ()) for name in TEXTS), strict=True)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking or not self.seen:
            return
        places = np.linspace(0, len(self.seen) - 1, min(self.sentences, len(self.seen)))
        shown = [self.seen[place] for place in places.round().astype(int)]
        self._write(trainer, f"step-{trainer.global_step}.txt", [], shown)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.seen:
            rank_zero_warn(
                "Translations writes nothing: it shows what modules.Translator translates. Leave "
                "the callback out for other tasks."
            )
            return
        signatures: Mapping[str, str] = getattr(pl_module, "signatures", {})
        head = [
            f"{name} {float(trainer.callback_metrics[f'test/{name}']):.2f}  {signature}"
            for name, signature in signatures.items()
            if f"test/{name}" in trainer.callback_metrics
        ]
        self._write(trainer, "test.txt", head, self.seen)

    def _write(
        self, trainer: L.Trainer, name: str, head: Sequence[str], shown: Sequence[Triple]
    ) -> None:
        folder = trainer.log_dir  # a broadcast: every process must ask
        if not trainer.is_global_zero or folder is None:
            return
        path = Path(folder, "samples", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        blocks = [
            "\n".join(f"{kind:<12} {text}" for kind, text in zip(TEXTS, triple, strict=True))
            for triple in shown
        ]
        path.write_text(
            "\n\n".join([*(["\n".join(head)] if head else []), *blocks]) + "\n", "utf-8"
        )
