"""BPE and WordPiece from scratch equal the `tokenizers` library."""

import argparse
import inspect
import json
import os
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from datamodules.text.tokenizers import train_bpe
from modules.scratch.bpe import BytePairs, merge
from modules.scratch.wordpiece import WordPiece
from preprocessing.byte_level import LETTER_OF_BYTE

DATA_DIR = Path(os.environ.get("DATA_DIR", "data"))
SOURCE = inspect.getsource(argparse)  # about 100,000 characters, available everywhere
UNICODE = (
    "  I'll don't\t\r\n\n x²  Ünïcode e\u0301 Σίσυφος ΣΑΣ 漢字 かな 😀👩\u200d💻 "
    "\x00\x7f\xad\ufeff\u2028 ½³ ﬁn—«end» 3.14\n "
)


def shakespeare() -> str:
    return (DATA_DIR / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")


def real(path: str) -> pytest.MarkDecorator:
    reason = f"no {path} in DATA_DIR: only generated files are tested"
    return pytest.mark.skipif(not (DATA_DIR / path).exists(), reason=reason)


@pytest.fixture(params=["generated", pytest.param("real", marks=real("gpt2-bpe/encoder.json"))])
def gpt2_files(request, tmp_path) -> tuple[Path, Path]:
    """Return `encoder.json` and `vocab.bpe`: OpenAI's, or small generated ones."""
    if request.param == "real":
        return DATA_DIR / "gpt2-bpe" / "encoder.json", DATA_DIR / "gpt2-bpe" / "vocab.bpe"
    vocab, merges = train_bpe([SOURCE], 600).model.save(str(tmp_path))
    return Path(vocab), Path(merges)


@pytest.fixture(
    params=["generated", pytest.param("real", marks=real("bert-base-uncased/vocab.txt"))]
)
def bert_file(request, tmp_path) -> Path:
    """Return `vocab.txt`: that of BERT uncased, or a small generated one."""
    if request.param == "real":
        return DATA_DIR / "bert-base-uncased" / "vocab.txt"
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WordPiece.train([SOURCE], 600).vocab) + "\n", encoding="utf-8")
    return path


def library_gpt2(files: tuple[Path, Path]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE.from_file(*map(str, files)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def library_bert(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return tokenizer


def pieces_of_library(texts: list[str], vocab_size: int) -> set[str]:
    """Return the pieces that the library's trainer learns."""
    tokenizer = library_bert(models.WordPiece(unk_token="[UNK]"))
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=2, special_tokens=["[UNK]"], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return set(tokenizer.get_vocab())


def random_text(seed: int, last: int = 0x3000) -> str:
    draw = random.Random(seed)
    return "".join(
        chr(draw.randrange(last)) if draw.random() < 0.5 else draw.choice("ab 1'\n")
        for _ in range(2000)
    )


def test_letters_of_bytes_equal_those_of_the_library():
    assert sorted(LETTER_OF_BYTE) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert len(set(LETTER_OF_BYTE)) == 256


def test_pairs_are_merged_from_left_to_right():
    assert merge(list("aaaab"), ("a", "a"), "aa") == ["aa", "aa", "b"]
    assert merge(list("aaa"), ("a", "a"), "aa") == ["aa", "a"]


def test_bpe_tokens_equal_those_of_the_library(gpt2_files):
    own, library = BytePairs.from_files(*gpt2_files), library_gpt2(gpt2_files)
    for text in (SOURCE, UNICODE, *map(random_text, range(5))):
        ids = own.encode(text)
        assert ids == library.encode(text).ids
        assert own.decode(ids) == text


def test_incomplete_character_decodes_as_in_the_library(gpt2_files):
    own, library = BytePairs.from_files(*gpt2_files), library_gpt2(gpt2_files)
    ids = [index for byte in "a😀"[:2].encode()[:3] for index in [own.vocab[LETTER_OF_BYTE[byte]]]]
    assert own.decode(ids) == library.decode(ids) == "a\N{REPLACEMENT CHARACTER}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda: SOURCE, id="argparse"),
        pytest.param(shakespeare, id="shakespeare", marks=real("tinyshakespeare/input.txt")),
    ],
)
def test_bpe_training_equals_that_of_the_library(read):
    own, library = BytePairs.train([read()], 1000), train_bpe([read()], 1000)
    learned = json.loads(library.to_str())["model"]
    assert own.merges == [tuple(pair) for pair in learned["merges"]]
    assert own.vocab == learned["vocab"]


@pytest.mark.filterwarnings("ignore:The text repeats too little")
def test_ties_and_overlapping_pairs_are_handled_as_in_the_library():
    draw = random.Random(0)
    for _ in range(50):
        words = ["".join(draw.choices("aab", k=draw.randint(1, 12))) for _ in range(40)]
        text = " ".join(words)
        learned = json.loads(train_bpe([text], 350).to_str())["model"]
        own = BytePairs.train([text], 350)
        assert (own.merges, own.vocab) == ([tuple(p) for p in learned["merges"]], learned["vocab"])


def test_bpe_json_is_exchangeable_with_the_library():
    own = BytePairs.train([SOURCE], 400)
    library = Tokenizer.from_str(own.to_str())
    again = BytePairs.from_str(library.to_str())
    assert again.vocab == own.vocab
    for text in (UNICODE, "no leading space"):
        assert library.encode(text).ids == own.encode(text) == again.encode(text)
        assert library.decode(own.encode(text)) == text


def test_wordpiece_tokens_equal_those_of_the_library(bert_file):
    own = WordPiece.from_file(bert_file)
    library = library_bert(models.WordPiece.from_file(str(bert_file), unk_token="[UNK]"))
    too_long = "a" * 100 + " " + "a" * 101
    # below U+0500 the Unicode tables of Python and the library agree
    texts = (random_text(seed, last=0x500) for seed in range(5))
    for text in (SOURCE, UNICODE, too_long, *texts):
        ids = own.encode(text)
        assert ids == library.encode(text).ids
        assert own.decode(ids) == library.decode(ids, skip_special_tokens=False)
    assert Tokenizer.from_str(own.to_str()).encode(UNICODE).ids == own.encode(UNICODE)


def test_wordpiece_takes_the_longest_match():
    pieces = ["[UNK]", "un", "##a", "##aff", "##able", "##ab", "u"]
    own = WordPiece({piece: index for index, piece in enumerate(pieces)})
    assert [pieces[index] for index in own.encode("Unaffable")] == ["un", "##aff", "##able"]
    assert own.encode("unaffably") == [0]  # a word with an unmatched letter is unknown
    assert own.decode(own.encode("unaffable unab")) == "unaffable unab"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("read", "vocab_size"),
    [
        # no two equal counts: u-n 20, u-t 16, s-un 15, r-ut 12
        pytest.param(
            lambda: "sun " * 10 + "run " * 5 + "rut " * 12 + "gut " * 4 + "suns " * 5,
            1 + 6 + 4 + 4,
            id="generated",
        ),
        pytest.param(shakespeare, 600, id="real", marks=real("tinyshakespeare/input.txt")),
    ],
)
def test_wordpiece_training_equals_that_of_the_library(read, vocab_size):
    own = WordPiece.train([read()], vocab_size)
    assert set(own.vocab) == pieces_of_library([read()], vocab_size)
    assert len(own.vocab) == vocab_size
