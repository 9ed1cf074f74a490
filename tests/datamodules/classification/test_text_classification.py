"""Batches of labeled texts: tokens, padding, and an order that depends on the seed only."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

import datamodules
from datamodules import IMDB, SST2, AGNews, TextTable
from datamodules.classification.base import LabeledTexts, TextClassificationDataModule
from datamodules.loading.length_batches import BucketBatchSampler, padding_fraction
from datamodules.loading.ragged import RaggedTokens
from datamodules.loading.whole_batches import EvaluationBatchSampler
from datamodules.text.tokenizers import KINDS, train_tokenizer
from engine.errors import UserError
from preprocessing.texts import texts_to_inputs, with_truncation_and_padding
from tests.support import REAL_DIR
from tests.support.synthetic_data import TEXT_SETS

TEXTS = [
    "A fine film.",
    "don't see it",
    "the film's bad, BAD<br /><br />film",
    "naïve café 漢字 [PAD]",
]
LENGTHS = torch.randint(1, 60, (1003,), generator=torch.Generator().manual_seed(0))


def real(path: str) -> pytest.MarkDecorator:
    missing = not (REAL_DIR / path).exists()
    return pytest.mark.skipif(missing, reason=f"DATA_DIR holds no {path}")


@pytest.fixture(params=[name for name in TEXT_SETS if name != "GLUE"])
def data(request: pytest.FixtureRequest, small_texts: Path) -> TextClassificationDataModule:
    kind = getattr(datamodules, request.param)
    data = kind(data_dir=str(small_texts), batch_size=8)
    data.prepare_data()
    data.setup("fit")
    return data


def table(folder: Path, texts: list[str], **arguments) -> TextTable:
    lines = "".join(f"{text}\t{n % 2}\n" for n, text in enumerate(texts))
    (folder / "a.tsv").write_text(f"text\tlabel\n{lines}")
    small = {"batch_size": 4, "val": str(folder / "a.tsv"), "test": str(folder / "a.tsv")}
    return TextTable(str(folder / "a.tsv"), **{**small, **arguments})


# Tokenizers.


def some_tokenizer(kind: str, **arguments) -> Tokenizer:
    if kind == "bert" and not (REAL_DIR / "bert-base-uncased/vocab.txt").exists():
        pytest.skip("DATA_DIR holds no bert-base-uncased/vocab.txt")
    return train_tokenizer(kind, TEXTS * 3, 400, data_dir=REAL_DIR, **arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_equal_the_inputs_of_the_checkpoint_tokenizer(kind: str) -> None:
    tokenizer = some_tokenizer(kind)
    exported = Tokenizer.from_str(with_truncation_and_padding(tokenizer, 7))
    inputs = texts_to_inputs(TEXTS, exported)
    ragged = RaggedTokens.from_sequences(
        [torch.tensor(tokenizer.encode(text).ids).numpy() for text in TEXTS]
    )
    truncated = ragged.truncate(7, keep_last=kind in ("wordpiece", "bert"))
    batch = truncated.pad_batch(torch.arange(4), tokenizer.token_to_id("[PAD]"))
    assert inputs.keys() == batch.keys()
    for name in inputs:
        assert torch.equal(inputs[name], batch[name]), name
        assert inputs[name].dtype == batch[name].dtype


def test_words_are_split_at_punctuation_and_markup_is_removed() -> None:
    words = some_tokenizer("words").encode(TEXTS[2] + " " + TEXTS[1]).tokens
    assert words == ["the", "film", "'s", "bad", ",", "bad", "film", "don", "'t", "see", "it"]
    assert "BAD" in some_tokenizer("words", lowercase=False).get_vocab()


@pytest.mark.parametrize("kind", ["words", "characters"])
def test_special_token_written_in_a_text_is_plain_text(kind: str) -> None:
    tokenizer = some_tokenizer(kind)
    assert tokenizer.token_to_id("[PAD]") == 0
    assert tokenizer.token_to_id("[UNK]") == 1
    assert 0 not in tokenizer.encode("[PAD] film [PAD]").ids


def test_rare_words_are_unknown_and_vocabulary_keeps_frequent_words() -> None:
    tokenizer = train_tokenizer("words", ["b b b a a c", "a"], max_vocab_size=5, min_count=2)
    assert tokenizer.get_vocab() == {"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3}
    assert tokenizer.encode("c a").ids == [1, 2]
    assert train_tokenizer("words", ["b b b a a c"], max_vocab_size=3).get_vocab_size() == 3


def test_additional_special_tokens_follow_pad_and_unk() -> None:
    for kind in ("words", "characters", "bpe"):
        tokenizer = some_tokenizer(kind, special_tokens=["[BOS]", "[EOS]"])
        assert [tokenizer.id_to_token(n) for n in range(4)] == ["[PAD]", "[UNK]", "[BOS]", "[EOS]"]


def test_vocabulary_has_training_words_only(small_texts: Path) -> None:
    data = SST2(data_dir=str(small_texts))
    data.texts["train"] = LabeledTexts(["one word", "two words"], [0, 1])
    data.texts["val"] = LabeledTexts(["three words"], [1])
    assert set(data.tokenizer.get_vocab()) == {"[PAD]", "[UNK]", "one", "word", "two", "words"}


# Batches.


def test_batches_have_the_texts_with_their_labels(data: TextClassificationDataModule) -> None:
    known = dict(zip(*data.texts["train"], strict=True))
    label_of = {" ".join(data.tokenizer.encode(text).tokens): n for text, n in known.items()}
    seen = 0
    for inputs, labels in data.train_dataloader():
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        assert (ids.dtype, mask.dtype, labels.dtype) == (torch.int64, torch.bool, torch.int64)
        assert ids.shape == mask.shape == (8, int(mask.sum(dim=1).max()))
        assert not ids[~mask].any()
        for row, inside, label in zip(ids, mask, labels, strict=True):
            assert not inside.diff().any() or inside.int().diff().unique().tolist() != [1]
            words = [data.tokenizer.id_to_token(token) for token in row[inside].tolist()]
            assert label_of[" ".join(words)] == label
            seen += 1
    assert seen == len(known) // 8 * 8 or len(known) < len(data.texts["train"].labels)


def test_predict_loader_keeps_the_order_of_the_file(data: TextClassificationDataModule) -> None:
    labels = torch.cat([labels for _, labels in data.predict_dataloader()])
    assert labels.tolist() == data.texts["test"].labels


def bucketed(epoch: int = 0, **arguments) -> list[list[int]]:
    batches = BucketBatchSampler(LENGTHS, 12, **{"seed": 3, "pool": 5, **arguments})
    batches.set_epoch(epoch)
    return [rows.tolist() for rows in batches]


def test_order_depends_on_seed_and_epoch_only() -> None:
    first = bucketed(epoch=2)
    torch.manual_seed(99)
    assert bucketed(epoch=2) == first
    assert bucketed(epoch=3) != first
    assert bucketed(epoch=2, seed=4) != first


def test_epoch_serves_each_row_once_and_drops_the_incomplete_batch() -> None:
    rows = [row for batch in bucketed() for row in batch]
    assert len(rows) == len(set(rows)) == 1003 // 12 * 12
    assert set(rows) != {row for batch in bucketed(epoch=1) for row in batch}


@pytest.mark.parametrize("world_size", [2, 4])
def test_global_batches_do_not_depend_on_the_world_size(world_size: int) -> None:
    shards = [bucketed(rank=rank, world_size=world_size) for rank in range(world_size)]
    for parts, whole in zip(zip(*shards, strict=True), bucketed(), strict=True):
        assert sorted(row for part in parts for row in part) == sorted(whole)
        means = [LENGTHS[part].float().mean() for part in parts]
        assert max(means) - min(means) < 10  # of 60: similar work for all ranks


def test_resumed_epoch_starts_at_its_position() -> None:
    batches = BucketBatchSampler(LENGTHS, 12, seed=3, pool=5)
    batches.start = 7
    assert [rows.tolist() for rows in batches] == bucketed()[7:]


def test_bucketed_batches_have_little_padding_and_random_order() -> None:
    batches = BucketBatchSampler(LENGTHS, 12, pool=20).batches()
    widths = LENGTHS[batches].max(dim=1).values
    assert padding_fraction(LENGTHS[batches]) < 0.1
    assert padding_fraction(LENGTHS[BucketBatchSampler(LENGTHS, 12, pool=1).batches()]) > 0.4
    # With sorted pools nearly all differences would be positive; at random 41 ± 4.5 of 82 are.
    assert 25 < (widths.diff() > 0).sum() < 57


def test_padding_fraction_counts_padded_tokens() -> None:
    assert padding_fraction(torch.tensor([[1, 4], [2, 2]])) == pytest.approx(3 / 12)


@pytest.mark.parametrize("size", [1, 3, 17, 64])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_evaluation_serves_every_row_exactly_once(size: int, world_size: int) -> None:
    lengths = LENGTHS[:size]
    order = lengths.argsort(stable=True)
    ranks = [EvaluationBatchSampler(size, 8, rank, world_size, order) for rank in range(world_size)]
    rows = [row for batches in ranks for batch in batches for row in batch.tolist()]
    assert sorted(rows) == list(range(size))
    assert {len(batches) for batches in ranks} == {-(-size // 8)}  # the same number on all ranks
    assert [len(batches) for batches in ranks] == [len(list(batches)) for batches in ranks]
    for batches in ranks:
        taken = [row for batch in batches for row in batch.tolist()]
        assert lengths[taken].diff().ge(0).all()


def test_batch_without_rows_is_empty() -> None:
    ragged = RaggedTokens.from_sequences([torch.arange(n).numpy() for n in (2, 5, 3)])
    inputs = ragged.pad_batch(torch.tensor([], dtype=torch.long), 0)
    assert [tuple(part.shape) for part in inputs.values()] == [(0, 1), (0, 1)]


def test_truncate_keeps_the_last_token_on_request() -> None:
    ragged = RaggedTokens.from_sequences([torch.arange(n).numpy() for n in (2, 5, 3)])
    assert [ragged.truncate(3)[row].tolist() for row in range(3)] == [[0, 1], [0, 1, 2], [0, 1, 2]]
    kept = ragged.truncate(3, keep_last=True)
    assert [kept[row].tolist() for row in range(3)] == [[0, 1], [0, 1, 4], [0, 1, 2]]


# Warnings and summary.


def test_truncated_texts_are_counted(tmp_path: Path) -> None:
    data = table(tmp_path, ["one two three four"] * 3 + ["one two"] * 3, context=3)
    with pytest.warns(UserWarning, match="longer than the context of 3 tokens: 3 of 6 train, 3 of"):
        data.setup("fit")
    assert data.splits["train"].texts.lengths.tolist() == [3, 3, 3, 2, 2, 2]


def test_empty_texts_become_unknown_and_are_counted(tmp_path: Path) -> None:
    data = table(tmp_path, ["one two", "", "  ", "two"])
    with pytest.warns(UserWarning, match=r"Empty texts: 2 of 4 train.* number 2 of train"):
        data.setup("fit")
    assert [data.splits["train"].texts[row].tolist() for row in (1, 2)] == [[1], [1]]
    tokenizer = Tokenizer.from_str(data.tokenizer_json)
    inputs = texts_to_inputs(["", "one two"], tokenizer)
    assert inputs["input_ids"][0].tolist() == [1, 0]
    assert inputs["attention_mask"][0].tolist() == [True, False]
    assert texts_to_inputs([""], tokenizer)["input_ids"].tolist() == [[1]]


def test_summary_counts_texts_unknown_tokens_and_padding(tmp_path: Path) -> None:
    data = table(tmp_path, ["a b", "a"] * 4, min_count=5, batch_size=8)
    data.setup("fit")
    assert (
        "8 train, 8 val, 8 test texts, 1.5 tokens per text; vocabulary of 3 tokens" in data.summary
    )
    assert "33.3% of train and 33.3% of val unknown" in data.summary
    assert "padding 25.0% of a batch (25.0% without" in data.summary


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokenizer": "syllables"},
        {"max_vocab_size": 3},
        {"max_vocab_size": 250, "tokenizer": "bpe"},
        {"min_count": 0},
        {"context": 2},
        {"seed": -1},
    ],
)
def test_invalid_argument_is_named(wrong: dict) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        SST2(**wrong)


def test_damaged_file_is_an_error(small_texts: Path, tmp_path: Path) -> None:
    (tmp_path / "imdb").mkdir()
    (tmp_path / "imdb" / "aclImdb_pos_neg.tar.gz").write_bytes(b"not it")
    with pytest.raises(UserError, match="is damaged or not the expected file"):
        IMDB(data_dir=str(tmp_path)).prepare_data()


@pytest.mark.parametrize("kind", [SST2, IMDB, AGNews])
def test_missing_data_is_one_error(kind: type, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"could not be downloaded .*https://"):
        _ = kind(data_dir=str(tmp_path)).vocab_size


# The data sets.


def test_imdb_validation_reviews_are_split_off_training(small_texts: Path) -> None:
    texts = IMDB(data_dir=str(small_texts)).texts
    assert {split: len(part.labels) for split, part in texts.items()} == {
        "train": 130, "val": 20, "test": 60,
    }  # fmt: skip
    assert sum(texts["test"].labels) == 30


def test_ag_news_parts_share_no_item_with_each_other_or_test(small_texts: Path) -> None:
    with pytest.warns(UserWarning, match="of its 120,000 training items"):
        texts = AGNews(data_dir=str(small_texts)).texts
    trained = [*texts["train"].texts, *texts["val"].texts]
    assert len(trained) == len(set(trained)) <= 150 + 99 - 9 - 3
    assert len(trained) > 200  # nothing else is excluded
    for text in trained:
        assert not any(tested.endswith(text) for tested in texts["test"].texts)
        assert not any(other != text and other.endswith(f"title {text}") for other in trained)


@real("sst2/sentiment-dev")
def test_the_real_sst2() -> None:
    data = SST2(data_dir=str(REAL_DIR))
    sizes = {split: len(texts.labels) for split, texts in data.texts.items()}
    assert sizes == {"train": 67_349, "val": 872, "test": 1_821}
    assert sum(data.texts["val"].labels) == 444
    assert data.texts["train"].texts[0] == "hide new secretions from the parental units"
    assert {type(label) for label in data.texts["test"].labels} == {int}


@real("ag_news/test.csv.gz")
def test_the_real_ag_news() -> None:
    texts = AGNews(data_dir=str(REAL_DIR)).texts
    assert len(texts["test"].labels) == 7_600
    assert torch.tensor(texts["test"].labels).bincount().tolist() == [1_900] * 4
    train, test = set(texts["train"].texts) | set(texts["val"].texts), texts["test"].texts
    assert not train & set(test)


@pytest.mark.slow
@real("imdb/aclImdb_pos_neg.tar.gz")
def test_the_real_imdb() -> None:
    texts = IMDB(data_dir=str(REAL_DIR)).texts
    sizes = {split: len(part.labels) for split, part in texts.items()}
    assert sizes == {"train": 22_500, "val": 2_500, "test": 25_000}
    assert sum(texts["train"].labels) + sum(texts["val"].labels) == sum(texts["test"].labels)
    assert sum(len(text.split()) for part in texts.values() for text in part.texts) == 11_557_847
