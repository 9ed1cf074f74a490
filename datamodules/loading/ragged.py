"""Texts of many lengths without a byte of padding, and padded batches cut from them in one go."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

Inputs = dict[str, Tensor]  # input_ids int64 and attention_mask bool, both (B, T)


class RaggedTokens:
    """The tokens of N texts one after the other, and where each text begins.

    Args:
        tokens: All texts in a row, (total,), int32.
        offsets: Where each text begins, and the end of the last one: (N + 1,), int64.
    """

    def __init__(self, tokens: Tensor, offsets: Tensor) -> None:
        self.tokens = tokens
        self.offsets = offsets

    @classmethod
    def from_sequences(cls, texts: Iterable[np.ndarray]) -> "RaggedTokens":
        """Joins the tokens of one text after the other."""
        rows = list(texts)
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)  # (N,)
        joined = np.concatenate([np.empty(0, np.int32), *rows]).astype(np.int32)
        return cls(torch.from_numpy(joined), _offsets(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Tensor:
        """The tokens of one text, int64."""
        return self.tokens[self.offsets[row] : self.offsets[row + 1]].long()

    @property
    def lengths(self) -> Tensor:
        """How many tokens each text has, (N,)."""
        return self.offsets.diff()

    def truncate(self, context: int, keep_last: bool = False) -> "RaggedTokens":
        """The same texts, none longer than `context` tokens.

        Args:
            context: The most tokens that stay of a text.
            keep_last: A text that is cut still ends with its last token, such as BERT's [SEP].
        """
        starts, lengths = self.offsets[:-1], self.lengths
        place = torch.arange(len(self.tokens)) - starts.repeat_interleave(lengths)  # (total,)
        short = lengths.clamp(max=context)
        result = RaggedTokens(self.tokens[place < context], _offsets(short))
        if keep_last:
            cut = lengths > context
            result.tokens[result.offsets[1:][cut] - 1] = self.tokens[self.offsets[1:][cut] - 1]
        return result

    def drop(self, token: int) -> "RaggedTokens":
        """The same texts less all occurrences of a token."""
        kept = self.tokens != token  # (total,)
        before = torch.cat([torch.zeros(1, dtype=torch.int64), kept.cumsum(0)])  # (total + 1,)
        return RaggedTokens(self.tokens[kept], before[self.offsets])

    def pad_batch(self, rows: Tensor, pad: int) -> Inputs:
        """A batch of texts, as wide as the longest of them.

        Args:
            rows: Which texts, (B,).
            pad: The token that fills the shorter ones up.
        """
        starts = self.offsets[rows]  # (B,)
        lengths = self.offsets[rows + 1] - starts  # (B,)
        place = torch.arange(max(lengths.tolist(), default=1))  # (T,); a process may have no rows
        mask = place < lengths[:, None]  # (B, T)
        where = (starts[:, None] + place).clamp_(max=len(self.tokens) - 1)  # (B, T)
        ids = self.tokens[where].long().masked_fill_(~mask, pad)  # (B, T)
        return {"input_ids": ids, "attention_mask": mask}


def _offsets(lengths: Tensor) -> Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


class LabeledTokens(Dataset[tuple[Inputs, Tensor]]):
    """Texts with a label each; an item is the padded batch of the rows asked for.

    Args:
        texts: N texts.
        labels: (N,), int64.
        pad: The token that fills the shorter texts of a batch up.
    """

    def __init__(self, texts: RaggedTokens, labels: Tensor, pad: int) -> None:
        self.texts = texts
        self.labels = labels
        self.pad = pad

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Tensor:
        """How many tokens each text has, (N,)."""
        return self.texts.lengths

    source_lengths = lengths

    def __getitem__(self, rows: Tensor) -> tuple[Inputs, Tensor]:
        return self.texts.pad_batch(rows, self.pad), self.labels[rows]
