"""Refuse to resume a run on a text that has changed since."""

from abc import abstractmethod
from typing import Any

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from engine.errors import UserError


class UnchangedText(L.LightningDataModule):
    """Save a hash of the data in every checkpoint and compare it when a fit is resumed."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of the tokens; called after `setup`."""

    def state_dict(self) -> dict[str, Any]:
        return {"fingerprint": self.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        fitting = self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        saved = state_dict.get("fingerprint", self.fingerprint)  # older checkpoints have none
        if fitting and saved != self.fingerprint:
            raise UserError(
                f"cannot resume: the text of {type(self).__name__} has changed since the "
                "checkpoint was saved. Restore the text, or start a new run from the checkpoint's "
                "weights with --init_from."
            )
