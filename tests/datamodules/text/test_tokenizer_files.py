"""Every text data module takes the tokenizer of another model, so that it can be fine-tuned."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from datamodules import ParallelFiles, ReversedWords, TextFile, TextStream, TokenShards
from datamodules.text.encoding import encode_long_text, encode_texts
from datamodules.text.tokenizer_files import load_tokenizer
from datamodules.text.tokenizers import (
    add_end_of_text,
    character_tokenizer,
    find_end_of_text,
    train_bpe,
)
from engine.errors import UserError
from scripts import tokenize_text
from tests.support import ROOT

WORDS = ["the", "king", "is", "dead", "long", "live", "queen"]
SMALL = (
    *(
        "--config",
        ROOT / "configs/source/gpt.yaml",
        "--config",
        ROOT / "configs/size/gpt-nano.yaml",
    ),
    *("--data.context", 16, "--data.batch_size", 4, "--trainer.precision", "32-true"),
    *("--trainer.max_steps", 4, "--trainer.val_check_interval", 2),
)


def prose(length: int, seed: int = 0) -> str:
    generator = random.Random(seed)
    return " ".join(generator.choice(WORDS) for _ in range(length)) + "\n"


def save_checkpoint(path: Path, **tokenizers: Tokenizer) -> Path:
    saved = {key: tokenizer.to_str() for key, tokenizer in tokenizers.items()}
    torch.save({"state_dict": {}, "hyper_parameters": saved}, path)
    return path


@pytest.fixture
def bpe(tmp_path: Path) -> Path:
    """Checkpoint with a BPE tokenizer of 280 tokens."""
    return save_checkpoint(tmp_path / "model.ckpt", tokenizer=train_bpe([prose(500)], 280))


def test_language_model_is_fine_tuned_on_another_text_with_its_tokenizer(
    run: Callable[..., Path], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "first.txt").write_text(prose(1500))
    (tmp_path / "second.txt").write_text("Other words: zyzzyva, quiz. " * 200)
    own_text = (*SMALL, "--data", "datamodules.TextFile", "--trainer.callbacks", "null")
    first = run(
        *("fit", *own_text, "--data.files", tmp_path / "first.txt", "--data.tokenizer", "bpe"),
        *("--data.bpe_vocab_size", 280, "--experiment", "first"),
    )
    best = first / "checkpoints/best.ckpt"
    second = run(
        *("fit", *own_text, "--data.files", tmp_path / "second.txt", "--data.tokenizer", best),
        *("--init_from", best, "--experiment", "second"),
    )
    assert not [w for w in recwarn if "initiali" in str(w.message)]  # every weight was loaded
    first_vocab, second_vocab = (
        load_tokenizer(folder / "checkpoints/best.ckpt").get_vocab() for folder in (first, second)
    )
    assert first_vocab == second_vocab


@pytest.mark.parametrize("form", ["checkpoint", "tokenizer.json", "folder"])
def test_tokenizer_is_read_from_checkpoint_file_or_folder(
    tmp_path: Path, bpe: Path, form: str
) -> None:
    expected = load_tokenizer(bpe).to_str()
    (tmp_path / "tokenizer.json").write_text(expected)
    path = {"checkpoint": bpe, "folder": tmp_path}.get(form, tmp_path / form)
    (tmp_path / "text.txt").write_text(prose(300, seed=1))
    for memory_map in (False, True):
        data = TextFile(
            [str(tmp_path / "text.txt")],
            tokenizer=str(path),
            context=8,
            data_dir=str(tmp_path / "data"),
            memory_map=memory_map,
        )
        data.setup("fit")
        assert data.tokenizer_json == expected
        text = data.tokenizer.decode([*data.train_tokens.tolist(), *data.val_tokens.tolist()])
        assert text == prose(300, seed=1)


def test_shards_and_streams_take_the_tokenizer_unchanged(tmp_path: Path, bpe: Path) -> None:
    documents = [prose(50, seed) for seed in range(9)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in documents)
    (tmp_path / "texts.jsonl").write_text(lines)
    tokenize_text.main(
        [
            *(str(tmp_path / "texts.jsonl"), "--output", str(tmp_path / "shards")),
            *("--tokenizer", str(bpe), "--val_fraction", "0.3", "--workers", "1"),
        ]
    )
    shards = TokenShards(str(tmp_path / "shards"), context=8)
    stream = TextStream(
        "json", [str(tmp_path / "texts.jsonl")], tokenizer=str(bpe), val_documents=2, context=8
    )
    tokenizer = load_tokenizer(bpe)
    newline = tokenizer.encode("\n").ids
    for data in (shards, stream):
        data.setup("fit")
        assert data.vocab_size == 280
    expected = [t for text in documents[:2] for t in (*tokenizer.encode(text).ids, *newline)]
    assert stream.val_tokens.tolist() == expected
    assert shards.index["end_of_text"] == newline[0]


def test_end_of_text_token_is_the_tokenizers_own() -> None:
    tokenizer, token = add_end_of_text(train_bpe(["a"], 256))
    assert find_end_of_text(tokenizer) == token
    with pytest.raises(UserError, match="no end-of-text token"):
        find_end_of_text(character_tokenizer("abc"))


def test_translation_takes_both_tokenizers_of_a_translator(tmp_path: Path) -> None:
    first = ReversedWords(words=6, longest=4, sizes=(100, 10, 10))
    source, target = first.tokenizers
    path = save_checkpoint(
        tmp_path / "model.ckpt", source_tokenizer=source, target_tokenizer=target
    )
    for name, text in (("de", "kalo\n"), ("en", "bado\n")):
        (tmp_path / f"text.{name}").write_text(text * 9)
    files = [str(tmp_path / "text.de"), str(tmp_path / "text.en")]
    data = ParallelFiles(files, tokenizer=str(path))
    assert (data.source_vocab_size, data.target_vocab_size) == (
        source.get_vocab_size(),
        target.get_vocab_size(),
    )
    letters = save_checkpoint(tmp_path / "letters.ckpt", tokenizer=character_tokenizer("abc"))
    with pytest.raises(UserError, match=r"letters\.ckpt has no \[PAD\] or"):
        _ = ParallelFiles(files, tokenizer=str(letters)).tokenizers


def test_unknown_characters_are_named() -> None:
    tokenizer = character_tokenizer("abc ")
    with pytest.raises(UserError, match=r"contains 'é' \(U\+00E9\), '漢' \(U\+6F22\), which"):
        list(encode_texts(tokenizer, ["a 漢 bé"]))


def test_tokenizer_that_splits_elsewhere_encodes_the_text_at_once() -> None:
    """SentencePiece prepends "▁" to a text, so its tokens depend on where a text is split."""
    from tokenizers import models, normalizers

    vocab = {piece: index for index, piece in enumerate("▁abcdefghij")}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    text = "abc def " * 20_000
    tokens = [t for part in encode_long_text(tokenizer, [text]) for t in part.tolist()]
    assert tokens == tokenizer.encode(text).ids


def test_long_words_do_not_stall_the_training_of_bpe() -> None:
    generator = random.Random(0)
    word = "".join(generator.choice("abcdefghij") for _ in range(100_000))
    started = time.process_time()
    tokenizer = train_bpe([word], 300)
    assert (
        time.process_time() - started < 5
    )  # 17 s in one piece, 3 minutes for three times the length
    assert tokenizer.decode(tokenizer.encode(word).ids) == word


@pytest.mark.parametrize("files", [["text.txt"], "text.txt"])
def test_data_files_may_be_one_path(tmp_path: Path, monkeypatch, files: list[str] | str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "text.txt").write_text(prose(100))
    assert TextFile(files).find() == [Path("text.txt")]
    assert TextFile("~/*.txt").find() == [tmp_path / "text.txt"]


@pytest.mark.slow
def test_run_on_own_text_is_not_resumed_after_the_text_has_changed(
    run: Callable[..., Path], refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "my.txt").write_text(prose(1500))
    own_text = ("--data", "datamodules.TextFile", "--data.files", tmp_path / "my.txt")
    # With the config's sample prompt of other characters; its schedule could not be prolonged.
    folder = run("fit", *SMALL, *own_text, "--model.lr_scheduler", "null")
    (tmp_path / "my.txt").write_text(prose(1499) + "is ")
    last = ("--ckpt_path", folder / "checkpoints/last.ckpt")
    run("validate", "--config", folder / "config.yaml", *last)  # any text can be validated on
    resume = ("fit", "--resume", folder, "--trainer.max_steps", 6)
    assert "the text of TextFile has changed" in refused(*resume)
