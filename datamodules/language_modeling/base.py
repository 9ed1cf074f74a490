"""Base of the data modules for language models: random crops of a long token sequence."""

from abc import abstractmethod
from functools import cached_property

from tokenizers import Tokenizer
from torch.utils.data import DataLoader

from datamodules.language_modeling.token_batches import (
    RandomCrops,
    SequentialWindows,
    TokenSequence,
    train_loader,
    val_loader,
)
from datamodules.loading.fingerprint import hash_arrays
from datamodules.loading.loader import rank_and_world_size
from datamodules.loading.whole_batches import local_batch_size
from datamodules.text.unchanged import UnchangedText
from engine.errors import UserError

BLOCK = 2**24  # tokens hashed at once


class TokenDataModule(UnchangedText):
    """Serve (inputs, targets), both int64 (B, T), from one token sequence per split.

    Args:
        context: T, tokens per row.
        batch_size: B, rows per batch over all processes.
        seed: Seed of the positions of the crops.
    """

    train_tokens: TokenSequence
    val_tokens: TokenSequence

    def __init__(self, context: int, batch_size: int, seed: int) -> None:
        super().__init__()
        if context < 1:
            raise UserError(f"data.context must be at least 1, got {context}.")
        if batch_size < 1:
            raise UserError(f"data.batch_size must be at least 1, got {batch_size}.")
        if seed < 0:
            raise UserError(f"data.seed must be at least 0, got {seed}.")
        self.context = context
        self.batch_size = batch_size
        self.seed = seed

    @property
    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the tokens; must be available before `setup`."""

    @abstractmethod
    def load(self, split: str) -> TokenSequence:
        """Return the tokens of `train` or `val`."""

    @property
    @abstractmethod
    def remedy(self) -> str:
        """What to do about a text that is too short, for the error message."""

    # Linked to the model before training.

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.get_vocab_size()

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer as JSON, for `tokenizers.Tokenizer.from_str`."""
        return self.tokenizer.to_str()

    # From tokens to batches.

    def setup(self, stage: str) -> None:
        local_batch_size(self.batch_size, self._rank_and_size["world_size"])
        if not hasattr(self, "train_tokens"):
            train_tokens, val_tokens = self.load("train"), self.load("val")
            if min(len(train_tokens), len(val_tokens)) <= self.context:
                raise UserError(
                    f"The text is too short: {len(train_tokens)} training tokens and "
                    f"{len(val_tokens)} validation tokens, but a context of {self.context} needs "
                    f"{self.context + 1} of each. Use a smaller --data.context, or {self.remedy}."
                )
            self.train_tokens, self.val_tokens = train_tokens, val_tokens

    @cached_property
    def fingerprint(self) -> str:
        return hash_arrays(
            tokens[start : start + BLOCK]
            for tokens in (self.train_tokens, self.val_tokens)
            for start in range(0, len(tokens), BLOCK)
        )

    @property
    def _rank_and_size(self) -> dict[str, int]:
        rank, world_size = rank_and_world_size(self.trainer)
        return {"rank": rank, "world_size": world_size}

    def train_dataloader(self) -> DataLoader:
        crops = RandomCrops(
            self.train_tokens, self.context, self.batch_size, self.seed, **self._rank_and_size
        )
        return train_loader(crops, crops.seed, crops.rank)

    def val_dataloader(self) -> DataLoader:
        windows = SequentialWindows(
            self.val_tokens, self.context, self.batch_size, **self._rank_and_size
        )
        return val_loader(windows)
