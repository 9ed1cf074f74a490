"""Token sequences of varying length stored without padding, and padded batches of them."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

Inputs = dict[str, Tensor]  # input_ids int64, attention_mask bool, token_type_ids; all (B, T)


class RaggedTokens:
    """The concatenated tokens of N texts and the offset of each text.

    Args:
        tokens: Concatenated tokens of all texts, (total,), int32.
        offsets: Start of each text, then the end of the last one, (N + 1,), int64.
    """

    def __init__(self, tokens: Tensor, offsets: Tensor) -> None:
        self.tokens = tokens
        self.offsets = offsets

    @classmethod
    def from_sequences(cls, texts: Iterable[np.ndarray]) -> "RaggedTokens":
        """Concatenate token sequences."""
        rows = list(texts)
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)  # (N,)
        tokens = np.concatenate([np.empty(0, np.int32), *rows]).astype(np.int32)
        return cls(torch.from_numpy(tokens), _offsets(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Tensor:
        """Return the tokens of one text, int64."""
        return self.tokens[self.offsets[row] : self.offsets[row + 1]].long()

    @property
    def lengths(self) -> Tensor:
        """Number of tokens of each text, (N,)."""
        return self.offsets.diff()

    def truncate(self, context: int, keep_last: bool = False) -> "RaggedTokens":
        """Return the texts truncated to `context` tokens.

        Args:
            context: Maximum number of tokens of a text.
            keep_last: Replace the last token of a truncated text by its original last token, such
                as BERT's [SEP].
        """
        starts, lengths = self.offsets[:-1], self.lengths
        position = torch.arange(len(self.tokens)) - starts.repeat_interleave(lengths)  # (total,)
        short = lengths.clamp(max=context)
        result = RaggedTokens(self.tokens[position < context], _offsets(short))
        if keep_last:
            truncated = lengths > context
            last = self.tokens[self.offsets[1:][truncated] - 1]
            result.tokens[result.offsets[1:][truncated] - 1] = last
        return result

    def drop(self, token: int) -> "RaggedTokens":
        """Return the texts without any occurrence of a token."""
        kept = self.tokens != token  # (total,)
        before = torch.cat([torch.zeros(1, dtype=torch.int64), kept.cumsum(0)])  # (total + 1,)
        return RaggedTokens(self.tokens[kept], before[self.offsets])

    def pad_batch(self, rows: Tensor, pad: int) -> Inputs:
        """Return texts padded to the longest of them.

        Args:
            rows: Which texts, (B,).
            pad: Padding token.
        """
        starts = self.offsets[rows]  # (B,)
        lengths = self.offsets[rows + 1] - starts  # (B,)
        position = torch.arange(max(lengths.tolist(), default=1))  # (T,); a rank may have no rows
        mask = position < lengths[:, None]  # (B, T)
        index = (starts[:, None] + position).clamp_(max=len(self.tokens) - 1)  # (B, T)
        ids = self.tokens[index].long().masked_fill_(~mask, pad)  # (B, T)
        return {"input_ids": ids, "attention_mask": mask}


def _offsets(lengths: Tensor) -> Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


class LabeledTokens(Dataset[tuple[Inputs, Tensor]]):
    """Texts with targets; an item is the padded batch of the given rows.

    Args:
        texts: N texts.
        labels: Targets, (N,) or (N, C).
        pad: Padding token.
        token_types: For pairs of texts, the index of the text, 0 or 1, that each token is of.
    """

    def __init__(
        self,
        texts: RaggedTokens,
        labels: Tensor,
        pad: int,
        token_types: RaggedTokens | None = None,
    ) -> None:
        self.texts = texts
        self.labels = labels
        self.pad = pad
        self.token_types = token_types

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Tensor:
        """Number of tokens of each text, (N,)."""
        return self.texts.lengths

    source_lengths = lengths

    def __getitem__(self, rows: Tensor) -> tuple[Inputs, Tensor]:
        inputs = self.texts.pad_batch(rows, self.pad)
        if self.token_types is not None:
            inputs["token_type_ids"] = self.token_types.pad_batch(rows, 0)["input_ids"]
        return inputs, self.labels[rows]
