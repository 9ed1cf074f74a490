"""The configs of the repository, and arguments that make each small enough for a test."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from datamodules.text.tokenizers import character_tokenizer
from tests.support import DATA_SETS, REAL_DIR, ROOT
from tests.support.synthetic_data import PAIR_SETS, RUNNING_TEXTS, TEXT_SETS, make_shards

OVERLAYS = sorted((ROOT / "configs").glob("trainer/*.yaml")) + sorted(
    (ROOT / "configs").glob("logger/*.yaml")
)


CHOICES = [
    *(ROOT / "configs").glob("optimizer/*.yaml"),
    *(ROOT / "configs").glob("schedule/*.yaml"),
]


SIZES = sorted((ROOT / "configs").glob("size/*.yaml"))


SWEEPS = sorted((ROOT / "configs").glob("sweep/*.yaml"))


SEARCHES = sorted((ROOT / "configs").glob("search/*.yaml"))  # tests/test_tune.py


EXPERIMENTS = sorted(
    set((ROOT / "configs").glob("*/*.yaml")) - {*OVERLAYS, *CHOICES, *SIZES, *SWEEPS, *SEARCHES}
)


ONE_STEP = (
    *("--trainer.max_epochs", 1, "--trainer.max_steps", 1, "--trainer.accelerator", "cpu"),
    *("--trainer.limit_train_batches", 1, "--trainer.limit_val_batches", 1),
    *("--trainer.limit_test_batches", 1, "--trainer.val_check_interval", 1),
)


# The crash, in the fourth batch, is within the second epoch: each has two.
SOME_STEPS = (
    *("--trainer.max_epochs", 3, "--trainer.max_steps", 6, "--trainer.accelerator", "cpu"),
    *("--trainer.limit_train_batches", 2, "--trainer.limit_val_batches", 1),
    *("--trainer.val_check_interval", 2, "--trainer.accumulate_grad_batches", 1),
    *("--trainer.log_every_n_steps", 1, "--checkpoint.every_n_steps", 1),
    *("--test_after_fit", "false"),
)


# What is too large for a test is made small: everything else in the config stays as it is.
SMALLER: dict[str, tuple] = {
    # tests/test_bare_loop.py compiles it.
    "shakespeare/gpt": ("--model.compile", "false", "--data.batch_size", 4),
    "mnist/champion_gpu": ("--model.compile", "false", "--model.net.width", 8),
    "source/bert": ("--data.max_vocab_size", 300),
    "openwebtext/gpt2_124m": (
        *("--model.net.num_layers", 2, "--model.net.num_heads", 2, "--model.net.dim", 16),
        *("--model.compile", "false", "--data.context", 32, "--data.batch_size", 8),
    ),
    **dict.fromkeys(  # a net that has learnt nothing writes as long sentences as it may
        (f"multi30k/{net}" for net in ("seq2seq", "seq2seq_bahdanau", "seq2seq_luong")),
        ("--model.net.dim", 16, "--model.net.hidden_size", 16, "--data.batch_size", 16),
    ),
    "multi30k/transformer": ("--model.net.dim", 16, "--data.batch_size", 16),
    **dict.fromkeys(
        ("hymenoptera/squeezenet", "hymenoptera/squeezenet_scratch"),
        ("--data.in_memory", "false", "--data.batch_size", 4, "--trainer.precision", "32-true"),
    ),
}


# The made reviews have some thousand words.
SMALLER |= dict.fromkeys(("imdb/skip_gram", "imdb/cbow"), ("--data.batch_size", 512))


SMALLER["imdb/glove"] = ("--data.batch_size", 32)


# What begins with a checkpoint, by the path that it would have here: the runs that make it.
AFTER = dict.fromkeys(("sst2/bert_scratch", "sst2/bert_finetuned"), "imdb/bert_mlm")


MISSING = (
    *("does not exist and could not be downloaded", "there are no images"),
    "no pretrained weights",
)


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def data_for(
    config: Path, data_of: Callable[[str], Path], small_texts: Path, tmp_path: Path
) -> Path:
    """A data folder with what the config trains on: the real data, or made data, or a skip."""
    data = yaml.safe_load(config.read_text())["data"]
    kind = (data if isinstance(data, str) else data["class_path"]).rpartition(".")[2]
    if kind == "TokenShards":  # the real ones are too large for any machine of a test
        alphabet = "".join(map(chr, range(32, 127)))
        make_shards(
            tmp_path / "data" / data["init_args"]["folder"],
            tokenizer=character_tokenizer(alphabet),
        )
        return tmp_path / "data"
    # The real ones take seconds to read: tests of their own do it.
    if kind in (*TEXT_SETS, *RUNNING_TEXTS, *PAIR_SETS, "PackedIMDB"):
        return small_texts
    return data_of(kind) if kind in DATA_SETS else REAL_DIR


@contextmanager
def skipped_without_data(capsys) -> Iterator[None]:
    """Skips the test where train.py says that the data are neither there nor to be had."""
    try:
        yield
    except SystemExit:
        told = capsys.readouterr().err
        if any(missing in told for missing in MISSING):
            pytest.skip(f"no data for it: {told.strip()[:300]}")
        raise


def run_before(config: Path, run: Callable[..., Path], where: tuple) -> None:
    """One step of the run that a config begins with, if it does."""
    if name(config) in AFTER:
        before = ROOT / f"configs/{AFTER[name(config)]}.yaml"
        run("fit", "--config", before, *where, *ONE_STEP, "--trainer.callbacks", "[]")
