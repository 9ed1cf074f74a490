"""The configs of the repository, and arguments that make each small enough for a test."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from datamodules.text.tokenizers import character_tokenizer
from tests.support import DATA_SETS, REAL_DIR, ROOT
from tests.support.synthetic_data import PAIR_SETS, RUNNING_TEXTS, TEXT_SETS, make_shards

CONFIGS = ROOT / "configs"
OVERLAYS = sorted(CONFIGS.glob("trainer/*.yaml")) + sorted(CONFIGS.glob("logger/*.yaml"))
CHOICES = [*CONFIGS.glob("optimizer/*.yaml"), *CONFIGS.glob("schedule/*.yaml")]
ADAPTERS = sorted(CONFIGS.glob("adapter/*.yaml"))
SIZES = sorted(CONFIGS.glob("size/*.yaml"))
SWEEPS = sorted(CONFIGS.glob("sweep/*.yaml"))
SEARCHES = sorted(CONFIGS.glob("search/*.yaml"))
RAG = sorted(CONFIGS.glob("rag/*.yaml"))  # of rag.py evaluate
PROMPTS = sorted(CONFIGS.glob("prompts/*.yaml"))  # of scripts/evaluate_prompts.py
CAPSTONE = [CONFIGS / "capstone/capstone.yaml"]  # of python -m pipelines.capstone
EXPERIMENTS = sorted(
    set(CONFIGS.glob("*/*.yaml"))
    - {*OVERLAYS, *CHOICES, *ADAPTERS, *SIZES, *SWEEPS, *SEARCHES, *RAG, *PROMPTS, *CAPSTONE}
)
ONE_STEP = (
    *("--trainer.max_epochs", 1, "--trainer.max_steps", 1, "--trainer.accelerator", "cpu"),
    *("--trainer.limit_train_batches", 1, "--trainer.limit_val_batches", 1),
    *("--trainer.val_check_interval", 1, "--test_after_fit", "false"),
)
# Two batches per epoch: a crash in the fourth batch is within the second epoch.
SOME_STEPS = (
    *("--trainer.max_epochs", 3, "--trainer.max_steps", 6, "--trainer.accelerator", "cpu"),
    *("--trainer.limit_train_batches", 2, "--trainer.limit_val_batches", 1),
    *("--trainer.val_check_interval", 2, "--trainer.accumulate_grad_batches", 1),
    *("--trainer.log_every_n_steps", 1, "--checkpoint.every_n_steps", 1),
    *("--trainer.limit_test_batches", 1),
)
# Arguments that shrink what is too large for a test; the rest of the config is unchanged.
SMALLER: dict[str, tuple] = {
    # tests/benchmarks/test_bare_loop.py covers the compiled model
    "shakespeare/gpt": ("--model.compile", "false", "--data.batch_size", 4),
    "mnist/champion_gpu": ("--model.compile", "false", "--model.net.width", 8),
    "source/bert": ("--data.max_vocab_size", 300),
    "openwebtext/gpt2_124m": (
        *("--model.net.num_layers", 2, "--model.net.num_heads", 2, "--model.net.dim", 16),
        *("--model.compile", "false", "--data.context", 32, "--data.batch_size", 8),
    ),
    **dict.fromkeys(  # untrained networks generate sentences of the maximum length
        (f"multi30k/{net}" for net in ("seq2seq", "seq2seq_bahdanau", "seq2seq_luong")),
        ("--model.net.dim", 16, "--model.net.hidden_size", 16, "--data.batch_size", 16),
    ),
    "multi30k/transformer": ("--model.net.dim", 16, "--data.batch_size", 16),
    **dict.fromkeys(
        ("hymenoptera/squeezenet", "hymenoptera/squeezenet_scratch"),
        ("--data.in_memory", "false", "--data.batch_size", 4, "--trainer.precision", "32-true"),
    ),
}
TINY_BERT = (
    '{"class_path": "modules.nets.PretrainedClassifier", "init_args": {"pretrained": null, '
    '"config": {"model_type": "bert", "vocab_size": 30522, "hidden_size": 16, '
    '"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}}}'
)
MINILM = ("glue/cola", "glue/mrpc", "glue/stsb", "sst2/minilm")
SMALLER |= dict.fromkeys(MINILM, ("--model.net", TINY_BERT))
GUARD_TABLE = str(ROOT / "tests/fixtures/guard.csv")
SMALLER["safety/guard"] = (
    *("--model.net", TINY_BERT, "--data.batch_size", 4),
    *("--data.train", GUARD_TABLE, "--data.val", GUARD_TABLE, "--data.test", GUARD_TABLE),
)
TINY_TAGGER = TINY_BERT.replace("PretrainedClassifier", "PretrainedTokenClassifier")
SMALLER["squad/minilm_reader"] = ("--model.net", TINY_TAGGER)
SQUAD = ROOT / "tests/fixtures"
SMALLER["squad/minilm_grounding"] = (
    *("--model.net", TINY_BERT, "--data.batch_size", 4),
    *("--data.train", f"[{SQUAD / 'squad_train.json'}]", "--data.test", SQUAD / "squad_test.json"),
)
TINY_ENCODER = TINY_BERT.replace("PretrainedClassifier", "PretrainedEncoder")
PAIRS = str(ROOT / "tests/fixtures/pairs.jsonl")
SMALLER["capstone/encoder"] = (
    *("--model.net", TINY_ENCODER, "--data.train", PAIRS, "--data.batch_size", 4),
)
# The synthetic reviews have a few thousand words.
SMALLER |= dict.fromkeys(("imdb/skip_gram", "imdb/cbow"), ("--data.batch_size", 512))
SMALLER["imdb/glove"] = ("--data.batch_size", 32)
SMALLER["instruct/gpt_small"] = ("--data.batch_size", 1)  # few rows, since samples are packed
# A tiny model in the folder of the data in place of an installed package.
TINY_LLAMA = "tiny-llama"
SMALLER["instruct/smollm2_squad"] = (
    *("--model.net.pretrained", TINY_LLAMA, "--data.tokenizer", TINY_LLAMA),
    *("--data.batch_size", 1),
)
# Config that starts from a checkpoint: the config whose run writes it.
AFTER = dict.fromkeys(("sst2/bert_scratch", "sst2/bert_finetuned"), "imdb/bert_mlm")
MISSING = (
    *("does not exist and could not be downloaded", "there are no images"),
    "no pretrained weights",
)


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def write_config(folder: Path, text: str) -> Path:
    """Write `mine.yaml` into a folder and return its path."""
    (folder / "mine.yaml").write_text(text)
    return folder / "mine.yaml"


def data_for(
    config: Path, data_of: Callable[[str], Path], small_texts: Path, tmp_path: Path
) -> Path:
    """Return the folder of real or synthetic data for a config."""
    data = yaml.safe_load(config.read_text())["data"]
    kind = (data if isinstance(data, str) else data["class_path"]).rpartition(".")[2]
    if kind == "TokenShards":  # the real shards are too large for a test
        alphabet = "".join(map(chr, range(32, 127)))
        make_shards(
            tmp_path / "data" / data["init_args"]["folder"],
            tokenizer=character_tokenizer(alphabet),
        )
        return tmp_path / "data"
    if TINY_LLAMA in SMALLER.get(name(config), ()) and not (small_texts / TINY_LLAMA).exists():
        from tests.support.huggingface import make_chat_folder  # imports transformers

        make_chat_folder(small_texts / TINY_LLAMA, max_position_embeddings=512)
    # Reading the real texts takes seconds; the tests of each data module do it.
    if kind in (
        *TEXT_SETS,
        *RUNNING_TEXTS,
        *PAIR_SETS,
        "PackedIMDB",
        "Instructions",
        "Preferences",
        "ReadingComprehension",
        "ExtractiveQuestions",
    ):
        return small_texts
    return data_of(kind) if kind in DATA_SETS else REAL_DIR


@contextmanager
def skipped_without_data(capsys) -> Iterator[None]:
    """Skip the test if train.py reports that data are missing and cannot be downloaded."""
    try:
        yield
    except SystemExit:
        stderr = capsys.readouterr().err
        if any(message in stderr for message in MISSING):
            pytest.skip(f"no data: {stderr.strip()[:300]}")
        raise


def run_before(config: Path, run: Callable[..., Path], where: tuple) -> None:
    """Train one step of the run whose checkpoint a config starts from, if any."""
    if name(config) in AFTER:
        before = ROOT / f"configs/{AFTER[name(config)]}.yaml"
        run("fit", "--config", before, *where, *ONE_STEP, "--trainer.callbacks", "[]")
