"""Packed token sequences for masked language modeling, their draws and tokenizers."""

import re
from pathlib import Path

import pytest
import torch

from datamodules import PackedFiles, PackedIMDB
from datamodules.language_modeling.packed_texts import SeededTrainingSampler, pack
from datamodules.text.tokenizers import train_tokenizer
from tests.support.masked_language_model import CLS, PAD, SEP


def test_packed_rows_contain_the_full_text() -> None:
    tokens = torch.arange(10, 31, dtype=torch.int32)  # 21 tokens, six per row
    rows = pack(tokens, 8, CLS, SEP, PAD)
    assert rows.shape == (4, 8)
    assert (rows[:, 0] == CLS).all()
    assert (rows[:3, -1] == SEP).all()
    assert rows[3].tolist() == [CLS, 28, 29, 30, SEP, PAD, PAD, PAD]
    assert torch.equal(rows[rows >= 10], tokens)
    without_padding = pack(tokens[:12], 8, CLS, SEP, PAD)
    assert without_padding[:, [0, -1]].tolist() == [[CLS, SEP]] * 2


def test_blank_line_separates_texts_with_any_line_ending(tmp_path: Path) -> None:
    lines = [f"text number {n}\nof two lines\n\n" for n in range(20)]
    documents = []
    for name, end in (("unix", "\n"), ("windows", "\r\n")):
        (tmp_path / f"{name}.txt").write_bytes("".join(lines).replace("\n", end).encode())
        data = PackedFiles([str(tmp_path / f"{name}.txt")], tokenizer="wordpiece")
        documents.append([text.split() for text in data.documents("train")])
    assert documents[0] == documents[1]
    assert len(documents[0]) == 19  # the last is cut where the validation split begins


@pytest.fixture
def reviews(small_texts: Path) -> PackedIMDB:
    return PackedIMDB(data_dir=str(small_texts), max_vocab_size=120, context=32, batch_size=16)


def test_masking_differs_between_epochs_but_not_between_validations(reviews: PackedIMDB) -> None:
    reviews.setup("fit")

    def draws(loader, epoch: int | None = None) -> dict[tuple, int]:
        if epoch is not None:
            loader.sampler.set_epoch(epoch)
        draw_of_row = {}
        for inputs, tokens in loader:
            assert torch.equal(inputs["input_ids"], tokens)
            assert torch.equal(inputs["attention_mask"], tokens != PAD)
            rows = map(tuple, tokens.tolist())
            draw_of_row |= dict(zip(rows, inputs["draw"].tolist(), strict=True))
        return draw_of_row

    first, second = (draws(reviews.train_dataloader(), epoch) for epoch in (0, 1))
    assert first == draws(reviews.train_dataloader(), 0)
    assert not set(first.values()) & set(second.values())
    assert draws(reviews.val_dataloader()) == draws(reviews.val_dataloader())
    assert sorted(draws(reviews.val_dataloader()).values()) == list(
        range(len(reviews.splits["val"]))
    )
    reviews.seed = 1
    assert not set(first.values()) & set(draws(reviews.train_dataloader(), 0).values())


def test_masking_does_not_depend_on_the_number_of_processes() -> None:
    def global_batches(world_size: int) -> list[tuple]:
        samplers = [SeededTrainingSampler(50, 8, 3, rank, world_size) for rank in range(world_size)]
        for sampler in samplers:
            sampler.set_epoch(2)
        return [
            (
                torch.cat([rows for rows, _ in step]).tolist(),
                torch.cat([draws for _, draws in step]),
            )
            for step in zip(*samplers, strict=True)
        ]

    for (rows, draws), (other_rows, other_draws) in zip(
        global_batches(1), global_batches(2), strict=True
    ):
        assert rows == other_rows
        assert torch.equal(draws, other_draws)
        assert torch.equal(draws - draws[0], torch.tensor(rows) - rows[0])


def test_tokenizer_is_trained_on_training_texts_only(tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    path.write_text("the cat sat\n\n" * 90 + "zebra quagga okapi\n\n" * 10)
    data = PackedFiles([str(path)], val_fraction=0.15, context=8, batch_size=4)
    data.setup("fit")
    assert data.tokenizer.token_to_id("cat") is not None
    assert not [name for name in data.tokenizer.get_vocab() if "z" in name or "q" in name]
    assert "unknown) of 8 tokens each" in data.summary


def test_wordpiece_training_is_deterministic() -> None:
    text = ["the film is good and the cast is bad", "another film with words worth reading"]
    vocab = train_tokenizer("wordpiece", text * 3, 60).get_vocab()
    names = sorted(vocab, key=vocab.__getitem__)
    continuations = [name for name in names if re.fullmatch("##.", name)]
    assert names[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert continuations == sorted(continuations)
    assert names[5 : 5 + len(continuations)] == continuations
    assert len(names) == 60
