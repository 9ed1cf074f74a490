"""Turn texts into token shards, for datamodules.TokenShards to train on.

    python -m scripts.tokenize_text 'texts/**/*.txt' --output data/mine --tokenizer bpe
    python -m scripts.tokenize_text 'c4/*.jsonl.gz' --field text --output data/c4
    python -m scripts.tokenize_text --dataset Skylion007/openwebtext --output data/openwebtext \\
        --val_fraction 0.0005

Texts are UTF-8 (*.txt and whatever else), or JSON lines (*.jsonl), packed (*.gz) or not. Each file,
each JSON line, each row of a data set is a document; a token called <|endoftext|> follows each.
Worker processes tokenise; the shards are the same, byte for byte, however many there are. A run
that was interrupted is simply started again: a folder without index.json is not finished.

(Not called tokenize.py: Python's own `tokenize`, which `inspect` and so half of all libraries
import, would be this file wherever this folder comes first on the path.)
"""

import argparse
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer

from datamodules.language_modeling.text_stream import open_rows
from datamodules.language_modeling.token_shards import DTYPES, INDEX, ShardWriter, write_index
from datamodules.loading.files import default_data_dir
from datamodules.text import tokenization
from datamodules.text.reading import count_characters, matching_files, read_documents
from engine.errors import exit_on_user_error

# A split (train or val), and its text piece by piece, which must be read before the next.
Document = tuple[str, Iterator[str]]
TASK = 2**20  # characters that a worker gets at once
LEARNT_FROM = 10**9  # characters of the training part that byte pairs are learnt from, at most


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "python -m scripts.tokenize_text", description=__doc__, allow_abbrev=False
    )
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    add = made.add_argument
    add("files", nargs="*", help="text files, or patterns such as 'texts/**/*.txt', then sorted")
    add("--dataset", metavar="NAME", help="a data set of the Hugging Face hub instead, streamed")
    add("--dataset_split", default="train", metavar="NAME", help="which part of it (train)")
    add("--field", default="text", metavar="NAME", help="of a JSON line or a row, its text (text)")
    add("--split_at", metavar="TEXT", help="what stands between two documents of a text file")
    add("--output", type=Path, required=True, metavar="FOLDER", help="a folder for the shards")
    kinds = ("gpt2", "bpe", "characters")
    add("--tokenizer", choices=kinds, default="gpt2", help="bpe is learnt from the training part")
    add("--vocab_size", type=int, default=8192, help="the most tokens that bpe may have (8192)")
    val = made.add_mutually_exclusive_group()
    val.add_argument("--val_files", nargs="+", default=[], metavar="FILE", help="these validate")
    val.add_argument(
        "--val_fraction",
        type=float,
        default=0.01,
        metavar="F",
        help="else: this share of the documents validates, evenly spread (0.01)",
    )
    add("--shard_tokens", type=int, default=100_000_000, metavar="N", help="of a file (100000000)")
    add("--workers", type=int, default=cores(), help="processes (all cores)")
    add("--data_dir", type=Path, help="where gpt2's files are or go (DATA_DIR or data)")
    return made


def cores() -> int:
    """Those that this process may use, where the system tells."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def main(args: list[str] | None = None) -> None:
    """Run the command line; the same from Python: `main(["texts/*.txt", …])`.

    Args:
        args: Arguments; those of the process by default.

    Raises:
        SystemExit: With code 2 after a user's mistake, told in one sentence on stderr.
    """
    options = parser().parse_args(args)
    with exit_on_user_error("tokenize_text"):
        check(options)
        corpus = Corpus(options)
        options.output.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(options.output / ".lock", timeout=0):
                clear(options.output)
                make_shards(options, corpus)
        except Timeout as error:
            raise MisconfigurationException(
                f"another process is writing into {options.output}: name another --output."
            ) from error
        (options.output / ".lock").unlink(missing_ok=True)


def check(options: argparse.Namespace) -> None:
    for complaint, justified in {
        "name text files, or a --dataset.": not options.files and options.dataset is None,
        "name either text files or a --dataset.": bool(options.files and options.dataset),
        "--split_at is empty: leave it out, or name a text.": options.split_at == "",
        f"--val_fraction is {options.val_fraction}: it must lie between 0 and 1.": (
            not 0 < options.val_fraction < 1
        ),
        f"--vocab_size is {options.vocab_size}: it must be 257 or more, one for each byte and one "
        "for the end of a text.": options.vocab_size <= tokenization.NUM_BYTES,
        f"--shard_tokens is {options.shard_tokens}: it must be 1 or more.": (
            options.shard_tokens < 1
        ),
        f"--workers is {options.workers}: it must be 1 or more.": options.workers < 1,
        f"--output {options.output} is a file: name a folder.": options.output.is_file(),
        f"{options.output / INDEX} is there already: these shards are finished. Name another "
        "--output, or delete the folder.": (options.output / INDEX).exists(),
    }.items():
        if justified:
            raise MisconfigurationException(complaint)


def clear(folder: Path) -> None:
    """Delete what an interrupted run has left."""
    for pattern in ("train-[0-9]*.bin", "val-[0-9]*.bin", "*.partial"):
        for path in folder.glob(pattern):
            path.unlink()


# Where the documents come from.


class Corpus:
    """All documents in their order, as often as they are asked for; counts what it gave."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rows = None
        if options.dataset is not None:
            self.rows = open_rows(options.dataset, options.dataset_split, options.field, flag="--")
        found = {
            split: [path for name in names for path in matching_files(name, flag)]
            for split, names, flag in (
                ("train", options.files, "the command"),
                ("val", options.val_files, "--val_files"),
            )
        }
        # What validates does not train, though a pattern may name it for both; no file comes twice.
        splits = dict.fromkeys(found["train"], "train") | dict.fromkeys(found["val"], "val")
        self.files = list(splits.items())
        self.counts: dict[str, int] = {}

    def documents(self) -> Iterator[Document]:
        """Each document with its split: `train` or `val`."""
        self.counts = {}
        number = 0
        for source, split, texts in self._sources():
            self.counts[source] = 0
            for text in texts:
                self.counts[source] += 1
                if split == "train" and not self.options.val_files:
                    # Evenly spread: a document validates where the sum of shares passes a whole.
                    share = self.options.val_fraction
                    validates = int((number + 1) * share) > int(number * share)
                    number += 1
                    yield "val" if validates else "train", text
                else:
                    yield split, text

    def _sources(self) -> Iterator[tuple[str, str, Iterator[Iterator[str]]]]:
        for path, split in self.files:
            yield str(path), split, read_documents(path, self.options.field, self.options.split_at)
        if self.rows is not None:
            texts = (iter([row[self.options.field]]) for row in self.rows)
            yield f"{self.options.dataset}, {self.options.dataset_split}", "train", texts

    @property
    def size(self) -> int | None:
        """Bytes, where they are known."""
        paths = [path for path, _ in self.files]
        packed = any(path.suffix == ".gz" for path in paths)
        return None if packed or self.rows is not None else sum(p.stat().st_size for p in paths)


# From documents to tokens.


def make_tokenizer(options: argparse.Namespace, corpus: Corpus) -> tuple[Tokenizer, int]:
    """The tokenizer, and its token that follows each document."""
    if options.tokenizer == "gpt2":
        made = tokenization.gpt2(options.data_dir or Path(default_data_dir()))
    elif options.tokenizer == "characters":
        _, alphabet = count_characters(text for _, texts in corpus.documents() for text in texts)
        made = tokenization.characters(alphabet)
    else:
        training = (
            chunk
            for split, texts in corpus.documents()
            for chunk in (tokenization.in_chunks(texts) if split == "train" else consumed(texts))
        )
        made = tokenization.byte_pairs(first_characters(training), options.vocab_size - 1)
    return tokenization.with_end_of_text(made)


def consumed(texts: Iterable[str]) -> Iterator[str]:
    deque(texts, maxlen=0)
    return iter(())


def first_characters(texts: Iterable[str]) -> Iterator[str]:
    """As many as byte pairs are learnt from: the table of words must fit in memory."""
    left = LEARNT_FROM
    for text in texts:
        yield text
        left -= len(text)
        if left <= 0:
            return


def tasks(documents: Iterable[Document]) -> Iterator[tuple[str, list[str | None]]]:
    """What a worker gets at once: a split, and pieces of its text. None: a document ends here."""
    waiting: dict[str, list[str | None]] = {"train": [], "val": []}
    sizes = dict.fromkeys(waiting, 0)
    for split, texts in documents:
        for piece in tokenization.in_chunks(texts):
            waiting[split].append(piece)
            sizes[split] += len(piece)
            if sizes[split] >= TASK:
                yield split, waiting[split]
                waiting[split], sizes[split] = [], 0
        waiting[split].append(None)
    yield from waiting.items()


def encode(tokenizer: Tokenizer, end_of_text: int, pieces: list[str | None]) -> np.ndarray:
    """The tokens of a task."""
    encoded = tokenization.encode_each(tokenizer, (piece for piece in pieces if piece is not None))
    end = np.array([end_of_text], tokenization.token_dtype(tokenizer))
    return np.concatenate([end[:0], *(end if piece is None else next(encoded) for piece in pieces)])


def work(pieces: list[str | None]) -> np.ndarray:
    """`encode`, in a worker."""
    return encode(*_of_worker, pieces)


_of_worker: tuple[Tokenizer, int]


def begin_to_work(tokenizer_json: str, end_of_text: int) -> None:
    global _of_worker
    _of_worker = Tokenizer.from_str(tokenizer_json), end_of_text


def encoded(
    documents: Iterable[Document], tokenizer: Tokenizer, end_of_text: int, workers: int
) -> Iterator[tuple[str, int, np.ndarray]]:
    """Split, characters and tokens of all tasks, in their order."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread a process
    with ExitStack() as stack:
        submit: Callable[[list[str | None]], Callable[[], np.ndarray]]
        if workers == 1:
            submit = lambda pieces: lambda: encode(tokenizer, end_of_text, pieces)  # noqa: E731
        else:
            # A forked worker has all modules already, which take seconds to import; it uses none
            # that has threads.
            pool = ProcessPoolExecutor(
                workers,
                mp_context=get_context("fork" if sys.platform == "linux" else "spawn"),
                initializer=begin_to_work,
                initargs=(tokenizer.to_str(), end_of_text),
            )
            stack.callback(pool.shutdown, cancel_futures=True)
            submit = lambda pieces: pool.submit(work, pieces).result  # noqa: E731
        ahead: deque = deque()  # never more than two tasks a worker are in memory
        for split, pieces in chain(tasks(documents), [("", None)] * 2 * workers):
            if pieces is not None:
                ahead.append((split, sum(len(p) for p in pieces if p is not None), submit(pieces)))
            if ahead and (pieces is None or len(ahead) >= 2 * workers):
                split, characters, result = ahead.popleft()
                try:
                    yield split, characters, result()
                except BrokenProcessPool as error:
                    raise MisconfigurationException(
                        "a worker was killed, most likely for want of memory: give fewer --workers."
                    ) from error


def make_shards(options: argparse.Namespace, corpus: Corpus) -> None:
    """Writes the folder."""
    console = Console(stderr=True)
    with console.status(f"making the tokenizer ({options.tokenizer})"):
        tokenizer, end_of_text = make_tokenizer(options, corpus)
    dtype = DTYPES[np.dtype(tokenization.token_dtype(tokenizer)).name]
    writers = {
        split: ShardWriter(options.output, split, dtype, options.shard_tokens)
        for split in ("train", "val")
    }
    started, tokens = time.perf_counter(), 0
    results = encoded(corpus.documents(), tokenizer, end_of_text, options.workers)
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task("", total=corpus.size)
        for split, characters, row in results:
            writers[split].write(row)
            tokens += len(row)
            rate = tokens / (time.perf_counter() - started)
            told = f"{tokens:,} tokens, {rate:,.0f} tokens/s"
            # Bytes are more than characters where the text is not English: the end corrects it.
            progress.update(bar, advance=characters, description=told)
        progress.update(bar, total=corpus.size or 1, completed=corpus.size or 1)
    for writer in writers.values():
        writer.close()
    shards = [shard for writer in writers.values() for shard in writer.shards]
    counted = {name: sum(s["tokens"] for s in shards if s["split"] == name) for name in writers}
    documents = sum(corpus.counts.values())
    for split, number in counted.items():
        if not number:
            clear(options.output)
            raise MisconfigurationException(
                f"no document is left for {split}: there are {documents}. Name files to validate "
                "by --val_files, where documents end by --split_at, or another --val_fraction."
            )
    sources = [{"name": name, "documents": n} for name, n in corpus.counts.items()]
    write_index(options.output, tokenizer, end_of_text, shards, sources)
    seconds = time.perf_counter() - started
    print(
        f"{options.output}: {counted['train']:,} tokens to train and {counted['val']:,} to "
        f"validate, of {documents:,} documents, in {len(shards)} shards of {dtype.name}; "
        f"vocabulary {tokenizer.get_vocab_size():,}\n"
        f"{seconds:.1f} s, {sum(counted.values()) / seconds:,.0f} tokens/s with "
        f"{options.workers} process{'es' if options.workers > 1 else ''}"
    )


if __name__ == "__main__":
    main()
