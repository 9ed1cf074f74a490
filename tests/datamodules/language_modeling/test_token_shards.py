"""TokenShards and scripts.tokenize_text: independent of shard sizes and worker processes."""

import errno
import gzip
import hashlib
import json
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from datamodules import TextFile, TokenShards
from datamodules.language_modeling.token_batches import RandomCrops
from datamodules.language_modeling.token_shards import ConcatenatedShards
from datamodules.text.reading import read_documents
from datamodules.text.tokenizers import add_end_of_text, character_tokenizer, train_bpe
from engine.errors import UserError
from scripts import tokenize_text
from tests.support import REAL_DIR, ROOT
from tests.support.synthetic_data import make_shards

WORDS = ["the", "king", "is", "dead,", "long", "live", "the", "queen", "of", "all", "the", "seas"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Write seven documents as text files, and again as JSON lines."""
    draw = np.random.default_rng(0)
    folder = tmp_path / "texts"
    folder.mkdir()
    documents = [" ".join(draw.choice(WORDS, 300)) + "\n漢 é" for _ in range(7)]
    for number, document in enumerate(documents):
        (folder / f"{number}.txt").write_text(document)
    lines = "".join(json.dumps({"id": 1, "text": document}) + "\n" for document in documents)
    (folder / "all.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    return folder


@pytest.fixture
def tokenize(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that runs the script with small shards and BPE by default."""

    def tokenize(*arguments: object, name: str = "shards") -> Path:
        small = ["--tokenizer", "bpe", "--vocab_size", "300", "--shard_tokens", "500"]
        small += ["--workers", "1", "--output", str(tmp_path / name)]
        small += [] if "--val_files" in arguments else ["--val_fraction", "0.3"]
        tokenize_text.main([*small, *map(str, arguments)])
        return tmp_path / name

    return tokenize


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def row(folder: Path, split: str) -> np.ndarray:
    index = json.loads((folder / "index.json").read_text())
    shards = [shard["file"] for shard in index["shards"] if shard["split"] == split]
    return np.concatenate([np.fromfile(folder / name, "<u2") for name in shards])


# TokenShards


def test_slices_span_shards() -> None:
    tokens = np.arange(100, dtype=np.uint16)
    for cuts in ([30], [1, 2, 3, 60], [50, 50, 99]):
        joined = ConcatenatedShards(np.split(tokens, cuts), [""] * (len(cuts) + 1), vocab_size=100)
        for start, stop in ((0, 100), (29, 31), (0, 1), (99, 100), (1, 61), (5, 5), (90, 200)):
            assert joined[start:stop].tolist() == tokens[start:stop].tolist()
            assert joined[start:stop].dtype == np.uint16


@pytest.mark.parametrize("world_size", [1, 2])
def test_batches_do_not_depend_on_shard_sizes(tmp_path: Path, world_size: int) -> None:
    seen = []
    for tokens_a_shard in (37, 300, 10_000):
        folder = make_shards(tmp_path / str(tokens_a_shard), shard_tokens=tokens_a_shard)
        ranks = []
        for rank in range(world_size):
            data = TokenShards(str(folder), context=16, batch_size=4, seed=5)
            data.trainer = SimpleNamespace(
                distributed_sampler_kwargs={"num_replicas": world_size, "rank": rank}
            )
            data.setup("fit")
            crops, windows = data.train_dataloader().dataset, data.val_dataloader()
            ranks.append([crops[0], crops[77], *windows])
        seen.append([torch.cat([side for batch in rank for side in batch]) for rank in ranks])
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))
    train = torch.from_numpy(row(tmp_path / "37", "train").astype(np.int64))
    whole = RandomCrops(train.numpy(), context=16, batch_size=4, seed=5)
    rows = slice(0, 4 // world_size)  # of rank 0, before its validation batches
    assert torch.equal(seen[0][0][rows], whole[0][0][rows])


def test_vocab_size_is_rounded_up_and_tokenizer_is_exported(tmp_path: Path) -> None:
    data = TokenShards(str(make_shards(tmp_path)), vocab_multiple=64)
    assert data.tokenizer.get_vocab_size() == 60
    assert data.vocab_size == 64
    assert data.context == 1024
    assert TokenShards(str(tmp_path)).vocab_size == 60
    assert Tokenizer.from_str(data.tokenizer_json).encode("! Z").ids == [1, 0, 58]


def test_folder_is_relative_to_data_dir_or_absolute(tmp_path: Path) -> None:
    make_shards(tmp_path / "mine")
    for folder in ("mine", str(tmp_path / "mine")):
        assert TokenShards(folder, data_dir=str(tmp_path)).vocab_size == 60


def test_large_vocabulary_is_stored_as_uint32(tmp_path: Path) -> None:
    alphabet = "".join(map(chr, range(0x10000, 0x10000 + 2**16)))  # plus the end of text
    make_shards(tmp_path, tokenizer=character_tokenizer(alphabet), highest=2**16)
    data = TokenShards(str(tmp_path), context=8, batch_size=2)
    data.setup("fit")
    assert data.index["dtype"] == "uint32"
    assert int(max(data.train_tokens[0:3000])) == 2**16


def change_index(folder: Path, **changes: object) -> TokenShards:
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | changes))
    return TokenShards(str(folder), context=16, batch_size=4, verify=True)


def test_missing_or_incomplete_folder_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere does not exist.*tokenize_text"):
        _ = TokenShards("nowhere", data_dir=str(tmp_path)).vocab_size
    with pytest.raises(UserError, match=r"has no index\.json and is incomplete"):
        _ = TokenShards(".", data_dir=str(tmp_path)).vocab_size


def test_unreadable_index_is_rejected(tmp_path: Path) -> None:
    data = change_index(make_shards(tmp_path), version=2)
    with pytest.raises(UserError, match=r"version 2, but only version 1"):
        _ = data.vocab_size
    with pytest.raises(UserError, match=r"dtype must be uint16 or uint32"):
        _ = change_index(tmp_path, version=1, dtype="int8").vocab_size
    with pytest.raises(UserError, match="shard 0 lacks split, tokens"):
        _ = change_index(tmp_path, dtype="uint16", shards=[{"file": "train-00000.bin"}]).vocab_size
    for text in ("{", "[]", "{}"):
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(UserError, match="damaged or not an index"):
            _ = TokenShards(str(tmp_path)).vocab_size


def test_truncated_shard_is_reported_with_its_sizes(tmp_path: Path) -> None:
    shard = make_shards(tmp_path, shard_tokens=500) / "train-00001.bin"
    shard.write_bytes(shard.read_bytes()[:-3])
    with pytest.raises(
        UserError,
        match=r"train-00001\.bin has 997 bytes, but index\.json expects 1,000 bytes \(500 tokens\)",
    ):
        TokenShards(str(tmp_path), context=16).setup("fit")
    shard.unlink()
    with pytest.raises(UserError, match=r"train-00001\.bin is missing"):
        TokenShards(str(tmp_path), context=16).setup("fit")


def test_verify_finds_a_changed_shard(tmp_path: Path) -> None:
    shard = make_shards(tmp_path) / "val-00000.bin"
    TokenShards(str(tmp_path), verify=True).prepare_data()
    data = bytearray(shard.read_bytes())
    data[10] ^= 1
    shard.write_bytes(data)
    TokenShards(str(tmp_path)).prepare_data()
    with pytest.raises(UserError, match=r"val-00000\.bin is damaged.*sha256:"):
        TokenShards(str(tmp_path), verify=True).prepare_data()


def test_token_beyond_the_vocabulary_is_reported(tmp_path: Path) -> None:
    data = change_index(make_shards(tmp_path), vocab_size=20)
    data.setup("fit")
    with pytest.raises(UserError, match=r"\.bin contains the token \d\d, but .* 20"):
        next(iter(data.train_dataloader()))


def test_invalid_context_and_batch_size_are_rejected(tmp_path: Path) -> None:
    folder = str(make_shards(tmp_path))
    with pytest.raises(UserError, match=r"3000 training tokens and 400 .* 401 of"):
        TokenShards(folder, context=400).setup("fit")
    TokenShards(folder, context=399).setup("fit")
    data = TokenShards(folder, context=8, batch_size=4)
    data.trainer = SimpleNamespace(distributed_sampler_kwargs={"num_replicas": 3, "rank": 0})
    with pytest.raises(UserError, match="not divisible by 3 processes"):
        data.setup("fit")
    for wrong in ({"context": 0}, {"batch_size": 0}, {"seed": -1}, {"vocab_multiple": 0}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            TokenShards(folder, **wrong)


# scripts.tokenize_text


def test_shards_do_not_depend_on_the_number_of_workers(
    texts: Path, tokenize: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenize_text, "TASK_CHARACTERS", 700)  # many tasks per worker
    one, three = (
        tokenize(texts / "*.txt", "--workers", number, name=str(number)) for number in (1, 3)
    )
    assert contents(one) == contents(three)
    assert {"train-00000.bin", "train-00001.bin", "val-00000.bin"} < set(contents(one))


def test_documents_are_in_order_with_end_of_text_between(
    texts: Path, tokenize: Callable[..., Path]
) -> None:
    for kind in ("bpe", "characters"):
        for source in ("*.txt", "all.jsonl.gz"):
            name = f"{kind}{source[0]}"
            folder = tokenize(texts / source, "--tokenizer", kind, name=name.replace("*", "s"))
            data = TokenShards(str(folder), context=8)
            end = data.index["end_of_text"]
            found: dict[str, list[str]] = {}
            for split in ("train", "val"):
                tokens = row(folder, split)
                assert tokens[-1] == end
                ends = [0, *(np.flatnonzero(tokens == end) + 1)]
                found[split] = [
                    data.tokenizer.decode(tokens[a : b - 1].tolist()) for a, b in pairwise(ends)
                ]
            documents = [path.read_text() for path in sorted(texts.glob("*.txt"))]
            assert found["val"] == [
                documents[3],
                documents[6],
            ]  # val_fraction 0.3: the fourth and the seventh
            assert found["train"] == [d for n, d in enumerate(documents) if n not in (3, 6)]
            assert sum(source["documents"] for source in data.index["sources"]) == 7


def test_text_is_never_encoded_as_end_of_text() -> None:
    for tokenizer in (character_tokenizer("<|endoftx>"), train_bpe(["a"], 300)):
        made, end = add_end_of_text(tokenizer)
        assert made.decode([end], skip_special_tokens=False) == "<|endoftext|>"
        assert end not in made.encode("<|endoftext|>").ids
        assert add_end_of_text(made) == (made, end)


def test_bpe_is_trained_on_the_training_split_only(
    texts: Path, tokenize: Callable[..., Path]
) -> None:
    (texts / "other.val").write_text("zyzzyva " * 300)
    folder = tokenize(texts / "*.txt", "--val_files", texts / "other.val")
    vocabulary = TokenShards(str(folder)).tokenizer.get_vocab()
    assert "Ġking" in vocabulary
    assert len(vocabulary) <= 300
    assert not any("zy" in token for token in vocabulary)


def test_shards_have_the_tokens_of_the_text_file(
    texts: Path, tokenize: Callable[..., Path]
) -> None:
    files = sorted(map(str, texts.glob("*.txt")))
    folder = tokenize(*files[:6], "--val_files", files[6], "--tokenizer", "characters")
    own = TextFile(files, tokenizer="characters")
    assert own.vocab_size + 1 == TokenShards(str(folder)).vocab_size
    shards = row(folder, "train")
    text = "".join(Path(file).read_text() for file in files[:6])
    assert shards[shards != own.vocab_size].tolist() == own.tokenizer.encode(text).ids


def test_validation_files_are_not_used_for_training(
    texts: Path, tokenize: Callable[..., Path]
) -> None:
    plain = ("--tokenizer", "characters")
    folder = tokenize(
        *(texts / "*.txt", texts / "[0-2].txt", "--val_files", texts / "6.txt", *plain)
    )
    alone = tokenize(*(texts / "[0-5].txt", "--val_files", texts / "6.txt", *plain), name="alone")
    for split in ("train", "val"):
        assert np.array_equal(row(folder, split), row(alone, split))


def test_separator_may_span_two_blocks(tmp_path: Path) -> None:
    path = tmp_path / "stories.txt"
    path.write_text("one" * 400_000 + "<|end|>two<|end|>")
    found = ["".join(pieces) for pieces in read_documents(path, "text", "<|end|>")]
    assert found == ["one" * 400_000, "two", ""]


def test_interrupted_run_leaves_no_index_and_can_be_repeated(
    texts: Path, tokenize: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = contents(tokenize(texts / "*.txt", name="uninterrupted"))
    open_shard, opened = tokenize_text.ShardWriter._open, []

    def interrupt_at_shard_40(writer: tokenize_text.ShardWriter) -> None:
        open_shard(writer)
        opened.append(writer)
        if len(opened) == 40:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tokenize_text.ShardWriter, "_open", interrupt_at_shard_40)
        with pytest.raises(KeyboardInterrupt):
            tokenize(texts / "*.txt", "--shard_tokens", 20)
    left = set(contents(texts.parent / "shards"))
    assert "train-00000.bin" in left
    assert any(name.endswith(".partial") for name in left)
    assert "index.json" not in left
    with pytest.raises(UserError, match="is incomplete"):
        _ = TokenShards(str(texts.parent / "shards")).vocab_size
    assert contents(tokenize(texts / "*.txt")) == expected  # without leftover files


def test_disk_usage_never_exceeds_the_shards(
    texts: Path, tokenize: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    write = tokenize_text.ShardWriter.write

    def watch(writer: tokenize_text.ShardWriter, tokens: np.ndarray) -> None:
        nonlocal most
        write(writer, tokens)
        most = max(most, sum(map(len, contents(writer.folder).values())))

    monkeypatch.setattr(tokenize_text.ShardWriter, "write", watch)
    folder = tokenize(texts / "*.txt")
    assert 0 < most <= sum(len(row(folder, split)) * 2 for split in ("train", "val"))


@pytest.fixture
def refused(tokenize: Callable[..., Path], capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Return a function that runs the script with a user error and returns the message."""

    def refused(*arguments: object) -> str:
        with pytest.raises(SystemExit) as exit:
            tokenize(*arguments)
        assert exit.value.code == 2
        message = [
            s for s in capsys.readouterr().err.splitlines() if s.startswith("tokenize_text: ")
        ]
        assert len(message) == 1
        return message[0]

    return refused


def test_user_errors_are_one_message(texts: Path, refused: Callable[..., str]) -> None:
    (texts / "bad.jsonl").write_text('{"text": "a"}\n{"body": "b"}\n')
    (texts / "worse.jsonl").write_text('{"text": "a"}\n{"text"\n')
    (texts / "half.jsonl").write_text('{"text": "cut \\ud83d"}\n{"text": "whole \\ud83d\\ude00"}\n')
    (texts / "cut.txt.gz").write_bytes(gzip.compress(b"abc" * 1000)[:-20])
    (texts / "latin.txt.gz").write_bytes(gzip.compress(b"caf\xe9 "))
    for arguments, message in {
        (): "give text files or a --dataset",
        ("nowhere/*.txt",): "no file matches 'nowhere/*.txt'",
        (texts / "0.txt", "--workers", 0): "--workers must be at least 1, got 0",
        (texts / "0.txt", "--shard_tokens", 0): "--shard_tokens must be at least 1",
        (texts / "0.txt", "--vocab_size", 256): "--vocab_size must be at least 257",
        (texts / "0.txt", "--val_fraction", 1): "--val_fraction must be between 0 and 1",
        (texts / "0.txt",): "of 1 documents none is left for val",
        (texts / "bad.jsonl",): "line 2 has no text in 'text'; its fields are 'body'",
        (texts / "worse.jsonl",): "line 2 is not valid JSON",
        (texts / "half.jsonl",): "line 1 contains half a character, \\ud83d",
        (texts / "0.txt", "--output", texts / "1.txt"): "1.txt is a file: name a folder",
        (texts / "cut.txt.gz",): "damaged or truncated",
        (texts / "latin.txt.gz",): "0xe9 at offset 3",
    }.items():
        assert message in refused(*arguments)


def test_complete_folder_is_not_overwritten(
    texts: Path, tokenize: Callable[..., Path], refused: Callable[..., str]
) -> None:
    folder = tokenize(texts / "*.txt")
    before = contents(folder)
    assert "are complete" in refused(texts / "*.txt")
    assert contents(folder) == before


def test_full_disk_is_reported(
    texts: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def write(self, data: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tokenize_text.ShardWriter, "_file", Full(), raising=False)
    monkeypatch.setattr(
        tokenize_text.ShardWriter, "_open", lambda self: setattr(self, "_remaining", 500)
    )
    assert "No space left" in refused(texts / "*.txt")


def test_hub_dataset_gives_the_shards_of_its_files(
    texts: Path, tokenize: Callable[..., Path], refused: Callable[..., str], monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'datasets>=3.0'" in refused("--dataset", "someone/some-texts")
    monkeypatch.undo()
    pytest.importorskip("datasets", reason="the optional package `datasets` is not installed")
    lines = gzip.decompress((texts / "all.jsonl.gz").read_bytes())
    (texts.parent / "hub").mkdir()
    (texts.parent / "hub" / "train.jsonl").write_bytes(lines)
    from_hub = tokenize("--dataset", texts.parent / "hub", name="a")
    from_file = tokenize(texts / "all.jsonl.gz", name="b")
    for split in ("train", "val"):
        assert row(from_hub, split).tolist() == row(from_file, split).tolist()


def test_no_script_hides_a_standard_module() -> None:
    programs = {path.stem for folder in (ROOT, ROOT / "scripts") for path in folder.glob("*.py")}
    assert "tokenize_text" in programs
    assert not programs & sys.stdlib_module_names


@pytest.mark.skipif(
    not (REAL_DIR / "gpt2-bpe/encoder.json").exists(), reason="DATA_DIR holds no gpt2-bpe"
)
def test_gpt2_documents_end_with_token_50256(texts: Path, tokenize: Callable[..., Path]) -> None:
    folder = tokenize(texts / "*.txt", "--tokenizer", "gpt2", "--data_dir", REAL_DIR)
    tokens = row(folder, "val")
    assert tokens[-1] == 50256
    assert (tokens == 50256).sum() == 2
    data = TokenShards(str(folder), vocab_multiple=64)
    assert (data.index["vocab_size"], data.vocab_size) == (50257, 50304)
    text = (texts / "3.txt").read_text()
    assert data.tokenizer.decode(tokens.tolist()).startswith(text + "<|endoftext|>")


def test_index_has_the_checksums_of_the_files(texts: Path, tokenize: Callable[..., Path]) -> None:
    folder = tokenize(texts / "*.txt")
    for shard in json.loads((folder / "index.json").read_text())["shards"]:
        data = (folder / shard["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == shard["sha256"]
        assert len(data) == 2 * shard["tokens"]
