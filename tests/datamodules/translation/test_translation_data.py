"""Translation data: reading, batches by length, tokenizers, user errors."""

import gzip
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from datamodules import Multi30k, ParallelFiles, ReversedWords
from datamodules.loading.length_batches import padding_fraction
from datamodules.translation.base import utf8_bytes
from datamodules.translation.reversed_words import SYLLABLES
from engine.errors import UserError
from tests.support import REAL_DIR
from tests.support.synthetic_data import ENGLISH, GERMAN

BAD = "Ünf€rtig"
SMALL = {"max_vocab_size": 300, "batch_size": 8}


@pytest.fixture
def data(small_texts: Path) -> Multi30k:
    data = Multi30k(data_dir=str(small_texts), **SMALL)
    data.prepare_data()
    data.setup("fit")
    return data


def files(folder: Path, source: str | bytes, target: str | bytes) -> list[str]:
    """Write two files and return their names."""
    paths = [folder / "some.de", folder / "some.en"]
    for path, text in zip(paths, (source, target), strict=True):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [str(path) for path in paths]


def lines(number: int, word: str = "word") -> str:
    return "".join(f"{word} {word * (n % 3 + 1)} {n}.\n" for n in range(number))


def test_batch_has_source_decoder_input_and_shifted_targets(data: Multi30k) -> None:
    source, target = data.tokenizers
    pad, begin, end = (target.token_to_id(name) for name in ("[PAD]", "[BOS]", "[EOS]"))
    pairs = dict(zip(*data.texts["train"], strict=True))
    for inputs, targets in data.train_dataloader():
        assert inputs.keys() == {"input_ids", "attention_mask", "decoder_input_ids"}
        for row in range(8):
            inside = inputs["attention_mask"][row]
            read = inputs["input_ids"][row]
            assert (read[~inside] == pad).all()
            assert read[inside][-1] == end
            message = targets[row] != -100
            written = inputs["decoder_input_ids"][row]
            assert written[0] == begin
            assert torch.equal(written[1:][message[1:]], targets[row][message][:-1])
            assert targets[row][message][-1] == end
            assert (written[~message] == pad).all()
            text = source.decode(read[inside][:-1].tolist())
            assert target.decode(targets[row][message][:-1].tolist()) == pairs[text]


def test_evaluation_batches_have_the_raw_references(data: Multi30k) -> None:
    seen = []
    for inputs, _ in data.test_dataloader():
        seen += [bytes(row).rstrip(b"\0").decode() for row in inputs["references"].tolist()]
    assert sorted(seen) == sorted(data.texts["test"].targets)
    assert any("läuft" in text for text in data.texts["test"].sources)


def test_each_pair_is_used_once_per_epoch_except_the_last_incomplete_batch(data: Multi30k) -> None:
    rows = torch.cat(list(data.train_dataloader().sampler))
    assert len(rows.unique()) == len(rows) == len(data.splits["train"]) // 8 * 8


def test_batches_depend_on_seed_and_epoch(small_texts: Path) -> None:
    def first(seed: int, epoch: int) -> torch.Tensor:
        data = Multi30k(data_dir=str(small_texts), seed=seed, **SMALL)
        data.setup("fit")
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        return next(iter(loader.sampler))

    assert torch.equal(first(0, 0), first(0, 0))
    assert not torch.equal(first(0, 0), first(0, 1))
    assert not torch.equal(first(0, 0), first(1, 0))


def test_batches_have_pairs_of_similar_length(data: Multi30k) -> None:
    train = data.splits["train"]
    for side in (train.sources, train.targets):
        bucketed = padding_fraction(side.lengths[data._batches().batches()])
        assert bucketed < 0.5 * padding_fraction(side.lengths[data._batches(pool=1).batches()])
    assert "shared vocabulary" in data.summary
    assert "260 train, 40 val, 30 test pairs" in data.summary


def test_vocabulary_is_shared_or_separate(small_texts: Path) -> None:
    shared, apart = (
        Multi30k(data_dir=str(small_texts), tokenizer="words", min_count=1, shared=message)
        for message in (True, False)
    )
    both = set(GERMAN.split()) | set(ENGLISH.split())
    assert shared.tokenizers[0].get_vocab() == shared.tokenizers[1].get_vocab()
    assert both < set(shared.tokenizers[0].get_vocab())
    assert shared.source_vocab_size == shared.target_vocab_size
    german, english = (set(tokenizer.get_vocab()) for tokenizer in apart.tokenizers)
    assert set(GERMAN.split()) < german
    assert set(ENGLISH.split()) < english
    assert not {"hund", "straße"} & english
    assert apart.source_vocab_size == len(german)


def test_vocabulary_is_built_from_training_pairs_only(tmp_path: Path) -> None:
    train = files(tmp_path, lines(60), lines(60))
    others = tmp_path / "others"
    others.mkdir()
    unseen = files(others, "zyzzyva zyzzyva\n" * 9, "quokka quokka\n" * 9)
    data = ParallelFiles(train, unseen, unseen, tokenizer="words", min_count=1)
    assert not {"zyzzyva", "quokka"} & set(data.tokenizers[0].get_vocab())


def test_bpe_is_lossless(small_texts: Path) -> None:
    data = Multi30k(data_dir=str(small_texts), **SMALL)
    for text in ("Straße, „Zitat“ – 漢字!", "two  blanks"):
        ids = data.tokenizers[1].encode(text).ids
        assert data.tokenizers[1].decode(ids) == text


def test_exported_tokenizers_truncate_and_frame_as_the_data(small_texts: Path) -> None:
    data = Multi30k(data_dir=str(small_texts), context=5, **SMALL)
    source = Tokenizer.from_str(data.source_tokenizer_json)
    target = Tokenizer.from_str(data.target_tokenizer_json)
    text = "Ein Mann und ein Hund und ein Kind."
    end = source.token_to_id("[EOS]")
    assert len(source.encode(text).ids) == len(target.encode(text).ids) == 5
    assert source.encode(text).ids[-1] == target.encode(text).ids[-1] == end
    assert target.encode(text).ids[0] == target.token_to_id("[BOS]")


def test_long_sentences_are_truncated_and_counted(small_texts: Path) -> None:
    data = Multi30k(data_dir=str(small_texts), context=6, tokenizer="words", batch_size=8)
    sources, targets = data.texts["val"]
    longer = sum(max(len(s.split()) + 1, len(t.split()) + 2) > 6 for s, t in zip(sources, targets))  # noqa: B905
    assert longer > 3
    with pytest.warns(UserWarning, match=f"of 6 tokens are truncated: .*{longer} of 40 val"):
        data.setup("fit")
    pairs = data.splits["train"]
    assert int(pairs.sources.lengths.max()) == int(pairs.targets.lengths.max()) == 6
    ends = pairs.targets.tokens[pairs.targets.offsets[1:] - 1]
    assert (ends == data.tokenizers[1].token_to_id("[EOS]")).all()


def test_training_pairs_with_an_empty_side_are_dropped_and_counted(tmp_path: Path) -> None:
    message, german = lines(30).splitlines(), lines(30, "wort").splitlines()
    message[3] = german[7] = " "
    pair = files(tmp_path, "\n".join(german) + "\n", "\n".join(message) + "\n")
    data = ParallelFiles(pair, pair, pair, batch_size=4)
    with pytest.warns(
        UserWarning, match="2 of 30 training pairs with an empty side; the first is line 4"
    ):
        assert len(data.texts["train"].sources) == 28
    assert data.texts["train"].sources[3] == german[4]
    assert len(data.texts["test"].sources) == 30  # no line is dropped from the test split
    assert data.texts["test"].sources[7] == ""


def test_missing_splits_are_taken_from_training_without_overlap(tmp_path: Path) -> None:
    data = ParallelFiles(files(tmp_path, lines(100, "wort"), lines(100)), val_fraction=0.2)
    sizes = {split: len(texts.sources) for split, texts in data.texts.items()}
    assert sizes == {"train": 75, "val": 20, "test": 5}
    pairs = [pair for texts in data.texts.values() for pair in zip(*texts, strict=True)]
    assert len(set(pairs)) == 100
    assert all(s.replace("wort", "word") == t for s, t in pairs)


def test_predict_keeps_the_lines_in_order(tmp_path: Path) -> None:
    train = files(tmp_path, lines(60), lines(60))
    (tmp_path / "mine.txt").write_text("word 5.\n\nword wordword 1.\n")
    data = ParallelFiles(train, batch_size=2, predict=str(tmp_path / "mine.txt"))
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert [len(targets) for _, targets in batches] == [2, 1]
    ids = batches[1][0]["input_ids"][0, :-1].tolist()
    assert data.tokenizers[0].decode(ids) == "word wordword 1."


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (lines(30), lines(28), r"some.de has 30 lines but .*some.en has 28"),
        ("", lines(3), r"some.de contains no sentence"),
        (lines(3), "\n\n\n", r"some.en contains no sentence"),
        (
            lines(3) + BAD + "\n",
            (lines(3) + BAD + "\n").encode("cp1252"),
            r"some.en is not UTF-8 text: line 4 contains the byte 0xdc",
        ),
        ("a\n\n", "\nb\n", "contains no pair"),
    ],
)
def test_unreadable_or_unaligned_files_are_rejected(
    tmp_path: Path, source: str, target: str | bytes, message: str
) -> None:
    pair = files(tmp_path, source, target)
    with pytest.raises(UserError, match=message):
        ParallelFiles(pair, pair, pair).texts  # noqa: B018


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train": ["one.de"]}, "data.train must be \[SOURCE, TARGET\], got 1"),
        ({"train": ["no.de", "no.en"]}, "there is no file no.de"),
        ({"val_fraction": 0.7}, "val_fraction must be between 0 and 0.5, got 0.7"),
        ({"tokenizer": "letters"}, "unknown tokenizer 'letters': choose one of bpe, words"),
        ({"max_vocab_size": 200}, "at least 260 for bpe, got 200"),
        ({"context": 2}, "context must be at least 3"),
    ],
)
def test_invalid_arguments_are_reported(tmp_path: Path, wrong: dict, message: str) -> None:
    given = {"train": files(tmp_path, lines(9), lines(9))} | wrong
    with pytest.raises(UserError, match=message):
        ParallelFiles(**given).load()


def test_compressed_files_are_read_and_damaged_ones_rejected(tmp_path: Path) -> None:
    pair = files(tmp_path, lines(40), lines(40))
    for name in pair:
        Path(f"{name}.gz").write_bytes(gzip.compress(Path(name).read_bytes()))
    packed = [f"{name}.gz" for name in pair]
    assert ParallelFiles(packed).texts == ParallelFiles(pair).texts
    Path(packed[0]).write_bytes(Path(packed[0]).read_bytes()[:-20])
    with pytest.raises(UserError, match=r"some.de.gz is damaged"):
        ParallelFiles(packed).texts  # noqa: B018


def test_missing_multi30k_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train.de.gz does not exist and"):
        Multi30k(data_dir=str(tmp_path)).prepare_data()


@pytest.mark.skipif(
    not (REAL_DIR / "multi30k/train.de.gz").is_file(), reason="DATA_DIR holds no multi30k"
)
def test_multi30k_has_its_published_sizes() -> None:
    data = Multi30k(data_dir=str(REAL_DIR))
    data.prepare_data()  # verifies the checksums
    sizes = {split: len(texts.sources) for split, texts in data.texts.items()}
    assert sizes == {"train": 29_000, "val": 1_014, "test": 1_000}
    assert (
        data.texts["train"].sources[2] == "Ein kleines Mädchen klettert in ein Spielhaus aus Holz."
    )
    assert data.texts["train"].targets[2] == "A little girl climbing into a wooden playhouse."


def test_reversed_words_translates_word_by_word_in_reverse() -> None:
    data = ReversedWords(words=36, longest=6, sizes=(500, 20, 20), batch_size=10)
    dictionary: dict[str, str] = {}
    for texts in data.texts.values():
        for source, target in zip(*texts, strict=True):
            words, backwards = source.split(), target.split()[::-1]
            assert 1 <= len(words) == len(backwards) <= 6
            for word, other in zip(words, backwards, strict=True):
                assert dictionary.setdefault(word, other) == other
    assert len(dictionary) == len(set(dictionary.values())) == 36
    assert all(word[:2] in SYLLABLES["source"].split() for word in dictionary)
    assert (
        data.texts == ReversedWords(36, 6, (500, 20, 20), seed=5).texts
    )  # independent of the seed of the run


@pytest.mark.parametrize(
    "wrong", [{"words": 1}, {"words": 37}, {"longest": 0}, {"sizes": (0, 1, 1)}]
)
def test_invalid_language_is_rejected(wrong: dict) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        ReversedWords(**wrong)


def test_utf8_bytes_decode_to_the_text() -> None:
    message = utf8_bytes(["ä", "", "abc"])
    assert message.lengths.tolist() == [2, 0, 3]
    assert bytes(message[0].tolist()).decode() == "ä"
