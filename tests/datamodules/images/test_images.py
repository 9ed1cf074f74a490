"""Image data sets: splits, normalization, and an order that depends on the seed only."""

from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch

from datamodules import MNIST, Digits, FashionMNIST
from datamodules.images.in_memory import ImageDataModule
from datamodules.images.mnist import _read_idx
from datamodules.loading.whole_batches import (
    EvaluationBatchSampler,
    TrainingBatchSampler,
    local_batch_size,
)
from engine.errors import UserError
from tests.support import REAL
from tests.support.synthetic_data import SIZES

ALL = [Digits, MNIST, FashionMNIST]


@pytest.fixture(params=ALL, ids=lambda data: data.__name__)
def data(request: pytest.FixtureRequest, data_of: Callable[[str], Path]) -> ImageDataModule:
    data = request.param(data_dir=str(data_of(request.param.__name__)), batch_size=64)
    data.prepare_data()
    data.setup("fit")
    return data


def test_splits_have_the_documented_sizes(data: ImageDataModule) -> None:
    sizes = {split: len(labels) for split, (_, labels) in data.splits.items()}
    if isinstance(data, Digits):
        assert sizes == {"train": 1_257, "val": 180, "test": 360}
    elif type(data).__name__ in REAL:
        assert sizes == {"train": 55_000, "val": 5_000, "test": 10_000}
    else:
        assert sizes == {"train": SIZES["train"] - 5_000, "val": 5_000, "test": SIZES["t10k"]}
    for images, labels in data.splits.values():
        assert images.shape[1:] == (data.in_channels, data.image_size, data.image_size)
        assert len(images) == len(labels)
        assert labels.unique().tolist() == list(range(data.num_classes))


def test_splits_do_not_depend_on_the_seed_of_a_run(data: ImageDataModule) -> None:
    other = type(data)(data_dir=data.data_dir, seed=7)
    other.setup("fit")
    for split, tensors in data.splits.items():
        for ours, others in zip(tensors, other.splits[split], strict=True):
            assert torch.equal(ours, others)


def test_splits_are_disjoint(data: ImageDataModule) -> None:
    hashes = {
        split: {hash(image.numpy().tobytes()) for image in images}
        for split, (images, _) in data.splits.items()
    }
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = hashes[one] & hashes[other]
        # Fashion-MNIST has a few duplicate images; a wrong split would share thousands.
        assert len(shared) <= (100 if isinstance(data, FashionMNIST) else 0)


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_test_split_is_the_official_test_set(kind: type[MNIST], data_of: Callable) -> None:
    data = kind(data_dir=str(data_of(kind.__name__)))
    data.setup("test")
    official = _read_idx(data._raw / "t10k-images-idx3-ubyte.gz")
    assert torch.equal(data.splits["test"][0][:, 0], official)
    training = _read_idx(data._raw / "train-images-idx3-ubyte.gz")
    total = sum(data.splits[split][0].long().sum() for split in ("train", "val"))
    assert total == training.long().sum()  # exactly the official training images


def test_mean_and_std_are_those_of_the_training_images(data: ImageDataModule) -> None:
    if not isinstance(data, Digits) and type(data).__name__ not in REAL:
        pytest.skip("the constants are those of the real data, which DATA_DIR does not have")
    scaled = data.splits["train"][0].double() / 255
    # 0.001: MNIST's usual constants are those of all 60,000 images, including validation.
    assert scaled.mean().item() == pytest.approx(data.mean[0], abs=0.001)
    assert scaled.std().item() == pytest.approx(data.std[0], abs=0.001)


def test_batches_are_scaled_and_normalized(data: ImageDataModule) -> None:
    raw = next(iter(data.train_dataloader()))
    assert raw[0].dtype == torch.uint8
    inputs, targets = data.on_after_batch_transfer(raw, 0)
    expected = (raw[0].float() / 255 - data.mean[0]) / data.std[0]
    torch.testing.assert_close(inputs, expected)
    assert inputs.shape == (64, 1, data.image_size, data.image_size)
    assert (targets.dtype, targets.shape) == (torch.int64, (64,))


def test_normalization_does_not_modify_the_data(data: ImageDataModule) -> None:
    before = data.splits["val"][0].clone()
    for batch in data.val_dataloader():
        data.on_after_batch_transfer(batch, 0)
    assert torch.equal(data.splits["val"][0], before)


def test_epoch_serves_each_row_once_and_drops_the_incomplete_batch() -> None:
    rows = torch.cat(list(TrainingBatchSampler(103, 10)))
    assert len(rows) == len(rows.unique()) == 100


def order(seed: int, epoch: int, rank: int = 0, world_size: int = 1) -> list[list[int]]:
    batches = TrainingBatchSampler(103, 12, seed, rank, world_size)
    batches.set_epoch(epoch)
    return [rows.tolist() for rows in batches]


def test_order_depends_on_seed_and_epoch_only() -> None:
    first = order(seed=1, epoch=2)
    torch.manual_seed(99)
    torch.rand(5)
    assert order(seed=1, epoch=2) == first
    assert order(seed=2, epoch=2) != first
    assert order(seed=1, epoch=3) != first
    assert order(seed=2, epoch=1) != first


def test_epoch_can_be_iterated_twice() -> None:
    batches = TrainingBatchSampler(50, 10)
    assert [rows.tolist() for rows in batches] == [rows.tolist() for rows in batches]


@pytest.mark.parametrize("world_size", [2, 4])
def test_global_batches_do_not_depend_on_the_world_size(world_size: int) -> None:
    shards = [order(3, 1, rank, world_size) for rank in range(world_size)]
    together = [sum(parts, []) for parts in zip(*shards, strict=True)]  # noqa: RUF017
    assert together == order(3, 1)


@pytest.mark.parametrize("size", [1, 3, 17, 64, 101])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_evaluation_serves_every_row_exactly_once(size: int, world_size: int) -> None:
    ranks = [EvaluationBatchSampler(size, 8, rank, world_size) for rank in range(world_size)]
    rows = [row for batches in ranks for batch in batches for row in batch.tolist()]
    assert sorted(rows) == list(range(size))
    assert [len(batches) for batches in ranks] == [len(list(batches)) for batches in ranks]
    assert len({len(batches) for batches in ranks}) == 1  # all ranks join each forward pass
    assert all(len(batch) <= 8 // world_size for batches in ranks for batch in batches)


def test_batch_size_must_be_divisible_by_the_world_size() -> None:
    assert local_batch_size(128, 4) == 32
    with pytest.raises(UserError, match=r"batch_size 130 .* 4 processes.* 128"):
        local_batch_size(130, 4)


def test_batch_larger_than_the_data_becomes_one_smaller_batch() -> None:
    with pytest.warns(
        UserWarning, match="batch_size 64 is larger .* 42 samples: .* one batch of 42"
    ):
        batches = [rows.tolist() for rows in TrainingBatchSampler(42, 64)]
    assert [sorted(rows) for rows in batches] == [list(range(42))]
    with pytest.warns(UserWarning, match="one batch of 40 per epoch"):
        shards = [list(TrainingBatchSampler(42, 64, rank=r, world_size=4)) for r in range(4)]
    assert [[len(rows) for rows in shard] for shard in shards] == [[10]] * 4


def test_every_epoch_of_a_fit_has_another_order(data: ImageDataModule) -> None:
    seen: list[list[int]] = []

    class Recorder(L.LightningModule):
        def training_step(self, batch: tuple, batch_idx: int) -> None:
            if batch_idx == 0:
                seen.append(batch[1].tolist())

        def configure_optimizers(self) -> None:
            return None

    trainer = L.Trainer(
        max_epochs=3,
        limit_train_batches=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(Recorder(), data)
    assert len({tuple(labels) for labels in seen}) == 3
