"""A long row of tokens for a language model: what text files and token shards have in common."""

from abc import abstractmethod

from lightning import LightningDataModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tokenizers import Tokenizer
from torch.utils.data import DataLoader

from datamodules.language_modeling.token_batches import (
    AllWindows,
    RandomCrops,
    Tokens,
    train_loader,
    val_loader,
)
from datamodules.loading.loader import rank_and_world_size
from datamodules.loading.whole_batches import local_batch_size


class TokenDataModule(LightningDataModule):
    """Batches of (inputs, targets), both int64 of shape (B, T), from two long rows of tokens.

    Args:
        context: T, the tokens that the net sees at once.
        batch_size: B, the rows of a step on all devices together.
        seed: Decides where the crops lie.
    """

    train_tokens: Tokens
    val_tokens: Tokens

    def __init__(self, context: int, batch_size: int, seed: int) -> None:
        super().__init__()
        refuse(
            {
                f"context is {context}: a net must see 1 token or more.": context < 1,
                f"batch_size is {batch_size}: a step needs 1 row or more.": batch_size < 1,
                f"seed is {seed}: it must be 0 or more.": seed < 0,
            }
        )
        self.context = context
        self.batch_size = batch_size
        self.seed = seed

    @property
    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """What made the tokens. It may be wanted before `setup`."""

    @abstractmethod
    def load(self, split: str) -> Tokens:
        """The tokens of `train` or `val`."""

    @property
    @abstractmethod
    def remedy(self) -> str:
        """What a user can do about too short a text."""

    # What the net and the task want to know before training.

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.get_vocab_size()

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer as `tokenizers.Tokenizer.from_str` reads it."""
        return self.tokenizer.to_str()

    # From tokens to batches.

    def setup(self, stage: str) -> None:
        local_batch_size(self.batch_size, rank_and_world_size(self.trainer)[1])
        if not hasattr(self, "train_tokens"):
            train_tokens, val_tokens = self.load("train"), self.load("val")
            self._check_length(len(train_tokens), len(val_tokens))
            self.train_tokens, self.val_tokens = train_tokens, val_tokens

    def _check_length(self, train: int, val: int) -> None:
        if min(train, val) <= self.context:
            raise MisconfigurationException(
                f"The text is too short: it has {train} tokens to train and {val} to validate, and "
                f"a context of {self.context} needs {self.context + 1} of each. Give "
                f"a smaller --data.context, or {self.remedy}."
            )

    def _share(self) -> dict[str, int]:
        rank, world_size = rank_and_world_size(self.trainer)
        return {"rank": rank, "world_size": world_size}

    def train_dataloader(self) -> DataLoader:
        crops = RandomCrops(
            self.train_tokens, self.context, self.batch_size, self.seed, **self._share()
        )
        return train_loader(crops, crops.seed, crops.rank)

    def val_dataloader(self) -> DataLoader:
        windows = AllWindows(self.val_tokens, self.context, self.batch_size, **self._share())
        return val_loader(windows)


def refuse(complaints: dict[str, bool]) -> None:
    """Raises the first justified complaint about an argument."""
    for complaint, justified in complaints.items():
        if justified:
            raise MisconfigurationException(complaint)
