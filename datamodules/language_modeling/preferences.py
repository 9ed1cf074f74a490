"""Pairs of answers of which one is preferred."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from datamodules.language_modeling.instructions import (
    Instructions,
    Sample,
    encode_answers,
    to_messages,
)
from datamodules.text.tokenizers import train_bpe
from preprocessing.chat import TURN_END, TURN_START, Message
from preprocessing.special_tokens import IGNORE_INDEX

Pair = tuple[Sample, Sample]  # chosen, rejected


class Preferences(Instructions):
    """Serve `({"input_ids", "index"}, targets)` of shapes (B, 2, T), (B,) and (B, 2, T).

    A record has an instruction, an optional input, and two answers: `chosen` and `rejected`, which
    stand in this order in dimension 1. Targets are the answers; all others, and padding, are -100.
    `index` is the number of the pair in its split. Takes the arguments of Instructions, except that
    `output_column` has no effect.
    """

    def parse(self, record: Mapping[str, Any], where: str) -> tuple[list[Message], list[Message]]:
        instruction, given, _ = self.columns
        chosen, rejected = (
            to_messages(record, (instruction, given, answer), where)
            for answer in ("chosen", "rejected")
        )
        return chosen, rejected

    def _train_tokenizer(self, _: str) -> Tokenizer:
        pairs = self.conversations["train"]
        texts = (message["content"] for pair in pairs for part in pair for message in part)
        return train_bpe(texts, self.bpe_vocab_size, special_tokens=(TURN_START, TURN_END))

    def encode(self, conversations: Sequence[Any]) -> list[Pair]:
        parts = zip(*conversations, strict=True)
        encoded = (encode_answers(self.tokenizer, self.chat_template, part) for part in parts)
        return list(zip(*encoded, strict=True))

    def length(self, sample: Pair) -> int:
        return max(len(part.tokens) for part in sample)

    def to_dataset(self, samples: Sequence[Pair]) -> "Pairs":
        return Pairs(samples)

    @property
    def summary(self) -> str:
        """Sizes in one line."""
        sizes = ", ".join(f"{len(data):,} {split}" for split, data in self.splits.items())
        return f"{sizes} pairs; vocabulary of {self.vocab_size:,}"


class Pairs(Dataset[tuple[dict[str, Tensor], Tensor]]):
    """Pairs of token sequences; an item is the batch of the given pairs, padded to the longest."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        def padded(name: str, value: int) -> Tensor:
            rows = [torch.from_numpy(getattr(part, name)) for pair in pairs for part in pair]
            return pad_sequence(rows, batch_first=True, padding_value=value).unflatten(0, (-1, 2))

        self.tokens, self.targets = padded("tokens", 0), padded("targets", IGNORE_INDEX)
        self.tensors = (self.tokens, self.targets)  # each (N, 2, T)
        self.lengths = torch.tensor([max(len(part.tokens) for part in pair) for pair in pairs])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        longest = max(self.lengths[rows].tolist(), default=1)
        tokens, targets = (tensor[rows, :, :longest].long() for tensor in self.tensors)
        return {"input_ids": tokens, "index": rows}, targets
