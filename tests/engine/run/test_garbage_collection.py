"""The collector leaves alone what lives as long as a run, and finds what is made in it."""

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import pytest

from engine.run.garbage_collection import GarbageCollection
from tests.support import TINY


@pytest.fixture
def _thawed() -> Iterator[None]:
    """As in a program of one's own: the tests have frozen what is imported."""
    gc.unfreeze()
    yield
    gc.freeze()


class Circle:
    """Refers to itself: only the collector can free it."""

    def __init__(self) -> None:
        self.itself = self


class Looks(L.Callback):
    """How much the collector leaves alone after each batch, and whether circles of a step go."""

    frozen: ClassVar[list[int]]
    freed: ClassVar[list[bool]]

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def on_train_batch_start(self, *_: Any) -> None:
        Looks.frozen.append(gc.get_freeze_count())
        circle = weakref.ref(Circle())
        gc.collect()
        Looks.freed.append(circle() is None)
        if self.fails and len(Looks.frozen) == 3:
            raise RuntimeError("as a user's own code may")


def look(run: Callable[..., Path], fails: bool) -> None:
    Looks.frozen, Looks.freed = [], []
    run(
        *("fit", "--config", TINY, "--trainer.limit_train_batches", 4),
        *("--test_after_fit", "false", f"--trainer.callbacks+={__name__}.Looks"),
        f"--trainer.callbacks.fails={str(fails).lower()}",
    )


@pytest.mark.usefixtures("_thawed")
def test_what_is_there_after_the_first_step_is_left_alone_until_the_end(run) -> None:
    look(run, fails=False)
    assert Looks.frozen[0] == 0
    assert min(Looks.frozen[1:]) > 100_000
    assert all(Looks.freed)
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("_thawed")
def test_a_run_that_fails_leaves_the_collector_as_it_was(run) -> None:
    with pytest.raises(RuntimeError, match="user's own code"):
        look(run, fails=True)
    assert Looks.frozen[-1] > 100_000
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("_thawed")
def test_a_second_training_is_left_alone_as_the_first() -> None:
    callback = GarbageCollection()
    for _ in range(2):
        callback.on_train_batch_end()
        assert gc.get_freeze_count() > 100_000
        callback.teardown(L.Trainer(logger=False), L.LightningModule(), "fit")
        assert gc.get_freeze_count() == 0


def test_what_others_froze_stays_frozen(run) -> None:
    before = gc.get_freeze_count()
    assert before > 100_000
    look(run, fails=False)
    # Some of it dies by itself; the run's own hundred thousand objects never join it.
    assert 0.99 * before < min(Looks.frozen)
    assert max(Looks.frozen) <= before
    assert 0.99 * before < gc.get_freeze_count() <= before
