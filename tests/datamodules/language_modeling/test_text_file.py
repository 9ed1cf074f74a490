"""TextFile: lossless tokenizers, batches that depend on (seed, step), full validation."""

import os
import random
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch.utils.data import DistributedSampler

from datamodules.language_modeling.shakespeare import Shakespeare
from datamodules.language_modeling.source import PythonSource
from datamodules.language_modeling.text_file import TextFile
from datamodules.language_modeling.token_batches import RandomCrops, SequentialWindows
from datamodules.text.encoding import encode_long_text, split_into_chunks
from datamodules.text.reading import count_characters, read_text
from datamodules.text.tokenizers import character_tokenizer, gpt2_tokenizer, train_bpe
from engine.errors import UserError
from preprocessing.special_tokens import IGNORE_INDEX

DATA_DIR = Path(os.environ.get("DATA_DIR", "data"))
NASTY = "  two blanks,\ttab\r\n\n\n end's  é e\u0301 ß 漢字 😀\x00\x1f\u2028\xa0I'll  \n"


def real(path: str) -> pytest.MarkDecorator:
    missing = not (DATA_DIR / path).exists()
    return pytest.mark.skipif(missing, reason=f"DATA_DIR holds no {path}")


def verse(length: int, seed: int = 0) -> str:
    """Return random words and newlines, with enough repetition to train BPE."""
    draw = random.Random(seed)
    text = ""
    while len(text) < length:
        text += draw.choice(["the", "king", "is", "dead", "long", "live", "queen", "I'll"])
        text += draw.choice([" ", " ", "  ", ", ", ".\n", "\n\n"])
    return text[:length]


@pytest.fixture
def text_file(tmp_path):
    """Return a function that builds a small TextFile of a text."""

    def make(text: str | bytes, **arguments) -> TextFile:
        path = tmp_path / "text.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        small = {"context": 8, "batch_size": 4, "data_dir": str(tmp_path / "data")}
        return TextFile([str(path)], **{**small, **arguments})

    return make


def processes(make, world_size: int) -> list:
    return [make(rank=rank, world_size=world_size) for rank in range(world_size)]


TOKENIZERS = [
    pytest.param(lambda: character_tokenizer(NASTY), id="characters"),
    pytest.param(lambda: train_bpe([verse(3000)], 280), id="bpe"),
    pytest.param(lambda: gpt2_tokenizer(DATA_DIR), id="gpt2", marks=real("gpt2-bpe/encoder.json")),
]


@pytest.mark.parametrize("make", TOKENIZERS)
def test_decode_inverts_encode_after_a_json_round_trip(make):
    tokenizer = make()
    reloaded = Tokenizer.from_str(tokenizer.to_str())
    ids = tokenizer.encode(NASTY).ids
    assert reloaded.encode(NASTY).ids == ids
    assert reloaded.decode(ids) == NASTY


@pytest.mark.parametrize("make", TOKENIZERS)
@pytest.mark.parametrize("piece", [1, 997, 10**6])
def test_encoding_in_chunks_gives_the_tokens_of_the_whole_text(make, piece, monkeypatch):
    tokenizer = make()
    monkeypatch.setattr(split_into_chunks, "__defaults__", (1,))  # as many chunks as possible
    text = NASTY * 40
    pieces = [text[start : start + piece] for start in range(0, len(text), piece)]
    fast = np.concatenate(list(encode_long_text(tokenizer, pieces)))
    assert fast.tolist() == tokenizer.encode(text).ids


def test_character_tokenizer_raises_for_an_unknown_character():
    with pytest.raises(Exception, match="UNK"):
        character_tokenizer("abc").encode("a漢éb")


def test_bpe_is_trained_on_the_training_split_only(text_file):
    data = text_file(verse(4500) + "zyzzyva " * 62, tokenizer="bpe", bpe_vocab_size=280)
    assert any("king" in token for token in data.tokenizer.get_vocab())
    assert not any("zy" in token for token in data.tokenizer.get_vocab())


def test_bpe_warns_if_the_text_allows_fewer_tokens(text_file):
    data = text_file(verse(500), tokenizer="bpe", bpe_vocab_size=5000)
    with pytest.warns(UserWarning, match="too few repeated pairs for a BPE vocabulary of 5000"):
        assert 256 < data.vocab_size < 5000


def test_last_tenth_is_the_validation_split(text_file):
    text = verse(1001)
    data = text_file(text)
    data.setup("fit")
    assert data.tokenizer.decode(data.train_tokens.tolist()) == text[:900]
    assert data.tokenizer.decode(data.val_tokens.tolist()) == text[900:]


def test_files_of_a_pattern_are_joined_in_sorted_order(tmp_path):
    for name in "bac":
        (tmp_path / f"{name}.txt").write_text(name * 50)
    data = TextFile([str(tmp_path / "*.txt")], context=2)
    data.setup("fit")
    text = data.tokenizer.decode([*data.train_tokens.tolist(), *data.val_tokens.tolist()])
    assert text == "a" * 50 + "b" * 50 + "c" * 50


def test_targets_are_the_inputs_shifted_by_one(text_file):
    data = text_file(verse(1000))
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for inputs, targets in loader:
            assert inputs.shape == targets.shape == (4, 8)
            assert inputs.dtype == targets.dtype == torch.int64
            known = targets[:, 1:] != IGNORE_INDEX  # padding of the last validation window
            assert torch.equal(targets[:, :-1][known], inputs[:, 1:][known])
    assert len(data.train_dataloader()) == 900 // (4 * 8)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_global_batch_does_not_depend_on_world_size(world_size):
    tokens = np.arange(500)
    whole = RandomCrops(tokens, context=8, batch_size=4, seed=3)
    shares = processes(lambda **share: RandomCrops(tokens, 8, 4, 3, **share), world_size)
    for step in (7, 0, 10**6):  # in any order
        rows = torch.cat([share[step][0] for share in shares])
        assert torch.equal(rows, whole[step][0])


def test_crops_differ_by_step_and_seed_and_cover_all_positions():
    tokens = np.arange(12)
    crops = RandomCrops(tokens, context=8, batch_size=64, seed=0)
    assert not torch.equal(crops[0][0], crops[1][0])
    assert not torch.equal(crops[0][0], RandomCrops(tokens, 8, 64, seed=1)[0][0])
    inputs, targets = crops[0]
    assert torch.equal(targets, inputs + 1)
    assert set(inputs[:, 0].tolist()) == {0, 1, 2, 3}  # the last target is the last token, 11


def test_steps_are_counted_over_all_epochs(text_file):
    data = text_file(verse(1000))
    data.setup("fit")
    loader = data.train_dataloader()
    steps = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        steps += list(loader.sampler)
    assert steps == list(range(2 * len(loader)))


def test_samplers_are_distributed_samplers_for_lightning(text_file):
    data = text_file(verse(1000))
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert isinstance(loader.sampler, DistributedSampler)  # otherwise Lightning wraps it


def test_only_training_batches_seed_the_random_state(text_file):
    data = text_file(verse(1000))
    data.setup("fit")
    before = torch.get_rng_state()
    next(iter(data.val_dataloader()))
    assert torch.equal(torch.get_rng_state(), before)
    next(iter(data.train_dataloader()))
    after = torch.get_rng_state()
    assert not torch.equal(after, before)
    torch.manual_seed(9)
    next(iter(data.train_dataloader()))
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("length", [9, 10, 57, 96, 97, 98, 105, 200])
def test_each_validation_token_is_a_target_once(length, world_size):
    tokens = np.arange(length)  # each token equals its position
    shares = processes(lambda **share: SequentialWindows(tokens, 8, 6, **share), world_size)
    assert len({len(share) for share in shares}) == 1  # the same number of batches on each rank
    batches = [share[index] for share in shares for index in range(len(share))]
    assert {batch[0].shape for batch in batches} == {(6 // world_size, 8)}
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    real_targets = targets != IGNORE_INDEX
    assert sorted(targets[real_targets].tolist()) == list(range(1, length))
    assert torch.equal(inputs[real_targets] + 1, targets[real_targets])


def test_memory_map_gives_the_same_batches_and_is_written_once(text_file, monkeypatch):
    made = []
    monkeypatch.setattr(
        "datamodules.language_modeling.text_file.encode_long_text",
        lambda *a: made.append(a) or encode_long_text(*a),
    )
    text = verse(3000)
    in_memory = text_file(text, tokenizer="bpe", bpe_vocab_size=280)
    in_memory.setup("fit")
    made.clear()
    mapped = [
        text_file(text, tokenizer="bpe", bpe_vocab_size=280, memory_map=True) for _ in range(4)
    ]
    os.utime(mapped[0].files[0], (1, 1))  # equal times for the four data modules
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda data: data.prepare_data(), mapped))
    assert len(made) == 2  # the training and the validation split
    for data in mapped:
        data.setup("fit")
        assert isinstance(data.train_tokens.base, np.memmap)
        assert data.tokenizer_json == in_memory.tokenizer_json
        for name in ("train_dataloader", "val_dataloader"):
            batches = zip(getattr(data, name)(), getattr(in_memory, name)(), strict=True)
            assert all(torch.equal(a, b) for own, its in batches for a, b in zip(own, its))  # noqa: B905


def test_changed_file_gets_a_new_memory_map(text_file):
    for text in (verse(1000), verse(1000, seed=1)):
        data = text_file(text, memory_map=True)
        data.setup("fit")
        assert data.tokenizer.decode(data.train_tokens.tolist()) == text[:900]


def test_reading_in_blocks_gives_the_whole_text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(NASTY.encode())
    for block in (1, 2, 7, 100):  # blocks split characters of several bytes
        assert "".join(read_text([path, path], block=block)) == NASTY * 2
        assert (
            "".join(read_text([path, path], 5, len(NASTY) + 3, block))
            == (NASTY * 2)[5 : len(NASTY) + 3]
        )
    assert count_characters(read_text([path, path])) == (
        2 * len(NASTY),
        "".join(sorted(set(NASTY))),
    )


def test_invalid_utf8_is_reported_with_file_and_offset(text_file, monkeypatch):
    data = text_file("é".encode() * 100 + b"\xff" + b"a" * 100)
    with pytest.raises(UserError, match=r"text\.txt is not UTF-8 .*0xff at offset 200"):
        _ = data.vocab_size
    truncated = text_file(b"a" * 300 + "é".encode()[:1])
    with pytest.raises(UserError, match=r"0xc3 at offset 300"):
        _ = truncated.vocab_size


def test_byte_order_mark_is_not_part_of_the_text(text_file):
    text = "Kóçt " * 30
    data = text_file(text.encode("utf-8-sig"))
    data.setup("fit")
    assert data.tokenizer.decode(data.train_tokens.tolist()) == text[: int(0.9 * len(text))]
    truncated = text_file(b"\xef\xbb\xbf" + b"a" * 300 + b"\xff")
    with pytest.raises(UserError, match=r"0xff at offset 303"):
        _ = truncated.vocab_size


def test_file_that_matches_two_patterns_is_read_once(text_file):
    data = text_file(verse(1000))
    data.files = [*data.files, data.files[0].replace("text.txt", "*.txt")]
    assert len(data.find()) == 1


def test_existing_memory_map_needs_no_write_permission(text_file, monkeypatch):
    def deny(path):
        raise PermissionError(path)

    made = text_file(verse(1000), memory_map=True)
    made.setup("fit")
    monkeypatch.setattr("datamodules.language_modeling.text_file.FileLock", deny)
    found = TextFile(made.files, context=8, batch_size=4, memory_map=True)
    found.data_dir = made.data_dir
    found.setup("fit")
    assert np.array_equal(found.train_tokens, made.train_tokens)
    with pytest.raises(UserError, match="cannot be written"):
        text_file(verse(1000, seed=1), memory_map=True).setup("fit")


def test_too_short_text_is_reported_with_its_tokens(text_file):
    with pytest.raises(UserError, match=r"text\.txt contain no text"):
        _ = text_file("").vocab_size
    for memory_map in (False, True):
        data = text_file("abcdefghij" * 8, memory_map=memory_map)
        with pytest.raises(UserError, match=r"72 training tokens and 8 .* needs 9"):
            data.setup("fit")
    text_file("abcdefghij" * 9).setup("fit")  # 81 and 9 tokens are enough


def test_pattern_without_match_is_reported():
    data = TextFile(["nowhere/*.txt"])
    with pytest.raises(UserError, match=r"no file matches 'nowhere/\*\.txt'"):
        _ = data.tokenizer_json


def test_indivisible_batch_size_is_rejected(text_file):
    data = text_file(verse(1000), batch_size=4)
    data.trainer = SimpleNamespace(distributed_sampler_kwargs={"num_replicas": 3, "rank": 0})
    with pytest.raises(UserError, match="not divisible by 3 processes"):
        data.setup("fit")


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokenizer": "words"},
        {"bpe_vocab_size": 255},
        {"context": 0},
        {"batch_size": 0},
        {"val_fraction": 1.0},
        {"seed": -1},
    ],
)
def test_invalid_argument_is_named(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        TextFile(["text.txt"], **wrong)


def test_python_source_needs_no_download():
    first, second = PythonSource(), PythonSource()
    assert first.tokenizer_json == second.tokenizer_json
    assert 50 < first.vocab_size < 150
    first.setup("fit")
    assert 1_000_000 < len(first.train_tokens) < 3_000_000
    start = first.tokenizer.decode(first.train_tokens[:2000].tolist())
    assert "argparse.ArgumentParser(" in start  # from the first module's docstring


@pytest.mark.slow
@real("tinyshakespeare/input.txt")
def test_shakespeare_has_its_published_sizes():
    data = Shakespeare(data_dir=str(DATA_DIR))
    data.setup("fit")
    assert data.vocab_size == 65
    assert (len(data.train_tokens), len(data.val_tokens)) == (1_003_854, 111_540)
    tokenizer = Tokenizer.from_str(data.tokenizer_json)
    text = (DATA_DIR / "tinyshakespeare" / "input.txt").read_text()
    assert data.train_tokens.tolist() == tokenizer.encode(text).ids[:1_003_854]


@real("tinyshakespeare/input.txt")
@real("gpt2-bpe/encoder.json")
def test_shakespeare_has_the_gpt2_tokens_of_nanogpt():
    data = Shakespeare(tokenizer="gpt2", data_dir=str(DATA_DIR))
    data.setup("fit")
    assert (len(data.train_tokens), len(data.val_tokens)) == (301_966, 36_059)


def test_failed_download_names_file_url_checksum_and_alternative(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    with pytest.raises(UserError) as error:
        _ = Shakespeare(data_dir=str(tmp_path)).vocab_size
    for part in ("input.txt", "raw.githubusercontent.com", "86c4e6aa9d", "configs/source/"):
        assert part in str(error.value)
