"""Objects that live as long as a run are frozen; those created in it are still collected."""

import gc
import weakref
from collections.abc import Callable, Iterator
from gc import get_freeze_count
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import pytest

from engine.run.garbage_collection import GarbageCollection
from tests.support import TINY


@pytest.fixture(autouse=True)
def _true_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo the patch of conftest.py."""
    monkeypatch.setattr(gc, "get_freeze_count", get_freeze_count)


@pytest.fixture
def _thawed() -> Iterator[None]:
    """Unfreeze what conftest.py froze, as in a user's program."""
    gc.unfreeze()
    yield
    gc.freeze()


class Cycle:
    """Refers to itself; only the collector can free it."""

    def __init__(self) -> None:
        self.itself = self


class RecordFrozen(L.Callback):
    """Record the number of frozen objects, and whether cycles created in a step are freed."""

    frozen: ClassVar[list[int]]
    freed: ClassVar[list[bool]]

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def on_train_batch_start(self, *_: Any) -> None:
        RecordFrozen.frozen.append(gc.get_freeze_count())
        cycle = weakref.ref(Cycle())
        gc.collect()
        RecordFrozen.freed.append(cycle() is None)
        if self.fails and len(RecordFrozen.frozen) == 3:
            raise RuntimeError("user code")


def fit(run: Callable[..., Path], fails: bool) -> None:
    RecordFrozen.frozen, RecordFrozen.freed = [], []
    run(
        *("fit", "--config", TINY, "--trainer.limit_train_batches", 4),
        *("--test_after_fit", "false", f"--trainer.callbacks+={__name__}.RecordFrozen"),
        f"--trainer.callbacks.fails={str(fails).lower()}",
    )


@pytest.mark.slow
@pytest.mark.usefixtures("_thawed")
def test_objects_are_frozen_from_the_first_step_to_the_end(run) -> None:
    fit(run, fails=False)
    assert RecordFrozen.frozen[0] == 0
    assert min(RecordFrozen.frozen[1:]) > 100_000
    assert all(RecordFrozen.freed)
    assert gc.get_freeze_count() == 0


@pytest.mark.slow
@pytest.mark.usefixtures("_thawed")
def test_failed_run_unfreezes(run) -> None:
    with pytest.raises(RuntimeError, match="user code"):
        fit(run, fails=True)
    assert RecordFrozen.frozen[-1] > 100_000
    assert gc.get_freeze_count() == 0


@pytest.mark.slow
@pytest.mark.usefixtures("_thawed")
def test_second_training_freezes_again() -> None:
    callback = GarbageCollection()
    for _ in range(2):
        callback.on_train_batch_end()
        assert gc.get_freeze_count() > 100_000
        callback.teardown(L.Trainer(logger=False), L.LightningModule(), "fit")
        assert gc.get_freeze_count() == 0


@pytest.mark.slow
def test_objects_frozen_by_others_stay_frozen(run) -> None:
    before = gc.get_freeze_count()
    assert before > 100_000
    fit(run, fails=False)
    # Some are freed meanwhile; the run's own hundred thousand objects are not added.
    assert 0.99 * before < min(RecordFrozen.frozen)
    assert max(RecordFrozen.frozen) <= before
    assert 0.99 * before < gc.get_freeze_count() <= before
