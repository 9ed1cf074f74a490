"""Convert texts to token shards, for datamodules.TokenShards and datamodules.TokenStream.

    python -m scripts.tokenize_text 'texts/**/*.txt' --output data/mine --tokenizer bpe
    python -m scripts.tokenize_text 'c4/*.jsonl.gz' --field text --output data/c4
    python -m scripts.tokenize_text --dataset Skylion007/openwebtext --output data/openwebtext \\
        --val_fraction 0.0005
    python -m scripts.tokenize_text my.txt --output data/mine \\
        --tokenizer runs/gpt/001/checkpoints/best.ckpt

Input files are UTF-8 text (*.txt and any other name) or JSON lines (*.jsonl), compressed (*.gz) or
not. Each file, JSON line or row of a data set is a document, followed by <|endoftext|>. A loaded
tokenizer stays unchanged: if it has no end-of-text token, a newline follows each document.

The shards do not depend on the number of worker processes. To redo an interrupted run, start it
again: a folder without index.json is incomplete.
"""
# Not called tokenize.py, which would hide Python's own module `tokenize` from `inspect`.

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
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer

from datamodules.language_modeling.text_stream import open_dataset
from datamodules.language_modeling.token_shards import DTYPES, INDEX, ShardWriter, write_index
from datamodules.loading.files import default_data_dir
from datamodules.text.encoding import chunk_size, encode_texts, split_into_chunks, token_dtype
from datamodules.text.reading import count_characters, find_files, read_documents
from datamodules.text.tokenizer_files import find_tokenizer, load_or_build
from datamodules.text.tokenizers import (
    NUM_BYTES,
    add_end_of_text,
    character_tokenizer,
    find_end_of_text,
    gpt2_tokenizer,
    take_characters,
    train_bpe,
)
from engine.errors import UserError, exit_on_user_error
from engine.process import escape_unencodable_output

# A split (train or val) and its text, piece by piece; read each document before the next.
Document = tuple[str, Iterator[str]]
KINDS = ("gpt2", "bpe", "characters")
TASK_CHARACTERS = 2**20  # sent to a worker at once
BPE_CHARACTERS = 10**9  # training text of `bpe`: its table of words must fit in memory


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "python -m scripts.tokenize_text",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("files", nargs="*", help="text files or patterns such as 'texts/**/*.txt'")
    add("--dataset", metavar="NAME", help="stream a data set of the Hugging Face hub instead")
    add("--dataset_split", default="train", metavar="NAME", help="its split (train)")
    add("--field", default="text", metavar="NAME", help="JSON key or column of the text (text)")
    add("--split_at", metavar="TEXT", help="separator of the documents of a text file")
    add("--output", type=Path, required=True, metavar="FOLDER", help="folder for the shards")
    add(
        "--tokenizer",
        default="gpt2",
        help="gpt2 (default), bpe (trained on the training split) or characters; or that of "
        "another model: its checkpoint, a tokenizer.json or a Hugging Face folder",
    )
    add("--vocab_size", type=int, default=8192, help="maximum vocabulary of bpe (8192)")
    val = made.add_mutually_exclusive_group()
    val.add_argument(
        "--val_files", nargs="+", default=[], metavar="FILE", help="files for validation"
    )
    val.add_argument(
        "--val_fraction",
        type=float,
        default=0.01,
        metavar="F",
        help="without --val_files: fraction of the documents for validation, evenly spread (0.01)",
    )
    add("--shard_tokens", type=int, default=100_000_000, metavar="N", help="per file (100000000)")
    add("--workers", type=int, default=cores(), help="processes (all cores)")
    add("--data_dir", type=Path, help="folder of GPT-2's files (DATA_DIR, else data)")
    return made


def cores() -> int:
    """Return the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def main(args: list[str] | None = None) -> None:
    """Run the command; from Python: `main(["texts/*.txt", …])`.

    Args:
        args: Arguments; by default those of the process.

    Raises:
        SystemExit: With code 2 and one message on stderr after a user error.
    """
    escape_unencodable_output()
    options = parser().parse_args(args)
    with exit_on_user_error("tokenize_text"):
        options.output = options.output.expanduser()
        options.data_dir = (options.data_dir or Path(default_data_dir())).expanduser()
        check(options)
        corpus = Corpus(options)
        options.output.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(options.output / ".lock", timeout=0):
                clear(options.output)
                write_shards(options, corpus)
        except Timeout as error:
            raise UserError(
                f"another process is writing to {options.output}: choose another --output."
            ) from error
        (options.output / ".lock").unlink(missing_ok=True)


def check(options: argparse.Namespace) -> None:
    if not options.files and options.dataset is None:
        raise UserError("give text files or a --dataset.")
    if options.files and options.dataset:
        raise UserError("give either text files or a --dataset, not both.")
    if options.split_at == "":
        raise UserError("--split_at must not be empty.")
    if not 0 < options.val_fraction < 1:
        raise UserError(f"--val_fraction must be between 0 and 1, got {options.val_fraction}.")
    if options.vocab_size <= NUM_BYTES:
        raise UserError(
            "--vocab_size must be at least 257, one token per byte and one for the end of a text, "
            f"got {options.vocab_size}."
        )
    for name in ("shard_tokens", "workers"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(options, name)}.")
    if options.output.is_file():
        raise UserError(f"--output {options.output} is a file: name a folder.")
    if (options.output / INDEX).exists():
        raise UserError(
            f"{options.output / INDEX} exists: these shards are complete. Choose another --output, "
            "or delete the folder."
        )
    find_tokenizer(options.tokenizer, KINDS, options.data_dir)


def clear(folder: Path) -> None:
    """Delete the files of an interrupted run."""
    for pattern in ("train-[0-9]*.bin", "val-[0-9]*.bin", "*.partial"):
        for path in folder.glob(pattern):
            path.unlink()


# Source of the documents.


class Corpus:
    """Iterate over all documents, repeatedly if needed, and count them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rows = None
        if options.dataset is not None:
            self.rows = open_dataset(
                options.dataset, options.dataset_split, options.field, flag="--"
            )
        # A file for validation is not used for training, even if both patterns match it.
        train, val = (
            find_files(options.files, "files"),
            find_files(options.val_files, "--val_files"),
        )
        self.files = list((dict.fromkeys(train, "train") | dict.fromkeys(val, "val")).items())
        self.counts: dict[str, int] = {}

    def documents(self) -> Iterator[Document]:
        """Return each document with its split, `train` or `val`."""
        self.counts = {}
        number = 0
        for source, split, texts in self._sources():
            self.counts[source] = 0
            for text in texts:
                self.counts[source] += 1
                if split == "train" and not self.options.val_files:
                    # Evenly spread: a document is for validation when number · fraction passes an
                    # integer.
                    fraction = self.options.val_fraction
                    is_val = int((number + 1) * fraction) > int(number * fraction)
                    number += 1
                    yield "val" if is_val else "train", text
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
        """Bytes of all documents, or None if unknown."""
        paths = [path for path, _ in self.files]
        compressed = any(path.suffix == ".gz" for path in paths)
        return None if compressed or self.rows is not None else sum(p.stat().st_size for p in paths)


# From documents to tokens.


def tokenizer_and_end(options: argparse.Namespace, corpus: Corpus) -> tuple[Tokenizer, int]:
    """Return the tokenizer and the token that follows each document."""

    def build(kind: str) -> Tokenizer:
        if kind == "gpt2":
            return gpt2_tokenizer(options.data_dir)
        if kind == "characters":
            texts = (text for _, texts in corpus.documents() for text in texts)
            return character_tokenizer(count_characters(texts)[1])
        train_texts = (
            chunk
            for split, texts in corpus.documents()
            for chunk in (split_into_chunks(texts) if split == "train" else skip(texts))
        )
        return train_bpe(take_characters(train_texts, BPE_CHARACTERS), options.vocab_size - 1)

    tokenizer = load_or_build(options.tokenizer, KINDS, build, options.data_dir)
    if options.tokenizer in KINDS:
        return add_end_of_text(tokenizer)
    return tokenizer, find_end_of_text(tokenizer)


def skip(texts: Iterable[str]) -> Iterator[str]:
    deque(texts, maxlen=0)
    return iter(())


def tasks(
    documents: Iterable[Document], chunk_characters: int
) -> Iterator[tuple[str, list[str | None]]]:
    """Group the text into tasks of a worker: a split and its chunks, None at a document's end."""
    waiting: dict[str, list[str | None]] = {"train": [], "val": []}
    sizes = dict.fromkeys(waiting, 0)
    for split, texts in documents:
        for chunk in split_into_chunks(texts, chunk_characters):
            waiting[split].append(chunk)
            sizes[split] += len(chunk)
            if sizes[split] >= TASK_CHARACTERS:
                yield split, waiting[split]
                waiting[split], sizes[split] = [], 0
        waiting[split].append(None)
    yield from waiting.items()


def encode(tokenizer: Tokenizer, end_of_text: int, chunks: list[str | None]) -> np.ndarray:
    """Return the tokens of a task."""
    texts = (chunk for chunk in chunks if chunk is not None)
    encoded = encode_texts(tokenizer, texts, special_tokens=False)
    end = np.array([end_of_text], token_dtype(tokenizer))
    return np.concatenate([end[:0], *(end if chunk is None else next(encoded) for chunk in chunks)])


def encode_in_worker(chunks: list[str | None]) -> np.ndarray:
    return encode(*_worker_tokenizer, chunks)


_worker_tokenizer: tuple[Tokenizer, int]


def initialize_worker(tokenizer_json: str, end_of_text: int) -> None:
    global _worker_tokenizer
    _worker_tokenizer = Tokenizer.from_str(tokenizer_json), end_of_text


def encode_all(
    documents: Iterable[Document], tokenizer: Tokenizer, end_of_text: int, workers: int
) -> Iterator[tuple[str, int, np.ndarray]]:
    """Return split, number of characters and tokens of all tasks, in order."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread per process
    with ExitStack() as stack:
        submit: Callable[[list[str | None]], Callable[[], np.ndarray]]
        if workers == 1:
            submit = lambda chunks: lambda: encode(tokenizer, end_of_text, chunks)  # noqa: E731
        else:
            # A forked worker does not import all modules again, which takes seconds; none of those
            # that it uses has threads.
            pool = ProcessPoolExecutor(
                workers,
                mp_context=get_context("fork" if sys.platform == "linux" else "spawn"),
                initializer=initialize_worker,
                initargs=(tokenizer.to_str(), end_of_text),
            )
            stack.callback(pool.shutdown, cancel_futures=True)
            submit = lambda chunks: pool.submit(encode_in_worker, chunks).result  # noqa: E731
        pending: deque = deque()  # at most two tasks per worker are in memory
        for split, chunks in chain(
            tasks(documents, chunk_size(tokenizer)), [("", None)] * 2 * workers
        ):
            if chunks is not None:
                characters = sum(len(chunk) for chunk in chunks if chunk is not None)
                pending.append((split, characters, submit(chunks)))
            if pending and (chunks is None or len(pending) >= 2 * workers):
                split, characters, result = pending.popleft()
                try:
                    yield split, characters, result()
                except BrokenProcessPool as error:
                    raise UserError(
                        "a worker was killed, probably because memory ran out: use fewer --workers."
                    ) from error


def write_shards(options: argparse.Namespace, corpus: Corpus) -> None:
    console = Console(stderr=True)
    with console.status(f"preparing the tokenizer ({options.tokenizer})"):
        tokenizer, end_of_text = tokenizer_and_end(options, corpus)
    dtype = DTYPES[np.dtype(token_dtype(tokenizer)).name]
    writers = {
        split: ShardWriter(options.output, split, dtype, options.shard_tokens)
        for split in ("train", "val")
    }
    started, written = time.perf_counter(), 0
    results = encode_all(corpus.documents(), tokenizer, end_of_text, options.workers)
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task("", total=corpus.size)
        for split, characters, tokens in results:
            writers[split].write(tokens)
            written += len(tokens)
            rate = written / (time.perf_counter() - started)
            # Characters approximate bytes; the last update below is exact.
            progress.update(
                bar, advance=characters, description=f"{written:,} tokens, {rate:,.0f} tokens/s"
            )
        progress.update(bar, total=corpus.size or 1, completed=corpus.size or 1)
    for writer in writers.values():
        writer.close()
    shards = [shard for writer in writers.values() for shard in writer.shards]
    counts = {name: sum(s["tokens"] for s in shards if s["split"] == name) for name in writers}
    documents = sum(corpus.counts.values())
    for split, count in counts.items():
        if not count:
            clear(options.output)
            raise UserError(
                f"of {documents} documents none is left for {split}: give --val_files, separate "
                "documents with --split_at, or change --val_fraction."
            )
    sources = [{"name": name, "documents": n} for name, n in corpus.counts.items()]
    write_index(options.output, tokenizer, end_of_text, shards, sources)
    seconds = time.perf_counter() - started
    print(
        f"{options.output}: {counts['train']:,} training and {counts['val']:,} validation tokens "
        f"of {documents:,} documents, {len(shards)} shards of {dtype.name}, vocabulary "
        f"{tokenizer.get_vocab_size():,}\n"
        f"{seconds:.1f} s, {sum(counts.values()) / seconds:,.0f} tokens/s with "
        f"{options.workers} process{'es' if options.workers > 1 else ''}"
    )


if __name__ == "__main__":
    main()
