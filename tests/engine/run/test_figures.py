"""Publishing figures: loggers, the state of matplotlib, and fonts."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from matplotlib.figure import Figure

from callbacks import ConfusionMatrix
from engine.run.figures import publish, render
from tests.support.figures import Digits, Task, make_trainer, read_figure, small_cnn


def test_tensorboard_gets_the_same_figure(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    loggers = [CSVLogger(tmp_path, name="", version=""), TensorBoardLogger(tmp_path, "tensorboard")]
    trainer = make_trainer(tmp_path, ConfusionMatrix(), logger=loggers)
    trainer.test(Task(small_cnn()), Digits(), verbose=False)
    events = event_accumulator.EventAccumulator(loggers[1].log_dir).Reload()
    (event,) = events.Images("figures/confusion_matrix")
    (tmp_path / "figures" / "seen.png").write_bytes(event.encoded_image_string)
    np.testing.assert_array_equal(
        read_figure(tmp_path, "seen"), read_figure(tmp_path, "confusion_matrix")
    )


def test_figures_do_not_change_matplotlib_state(tmp_path: Path) -> None:
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    publish(make_trainer(tmp_path), "empty", Figure)
    assert (tmp_path / "figures" / "empty.png").exists()
    assert not pyplot.get_fignums()
    assert dict(matplotlib.rcParams) == before


def figure_of(text: str) -> Figure:
    figure = Figure()
    figure.text(0, 0, text)
    return figure


def test_characters_that_the_default_font_lacks_are_drawn_in_an_installed_one(monkeypatch) -> None:
    drawn: list[list[str]] = []
    monkeypatch.setattr("engine.run.figures._fonts_with", lambda missing: [f"font of {missing}"])

    def draw() -> Figure:
        drawn.append(matplotlib.rcParams["font.family"])
        return figure_of("cat 猫")

    render(draw)
    assert drawn == [["DejaVu Sans"], ["DejaVu Sans", "font of {'猫'}"]]


def test_characters_that_no_font_has_are_reported(recwarn) -> None:
    render(lambda: figure_of("\U0010fffd"))  # a private-use character
    assert [str(w.message) for w in recwarn if "no installed font has" in str(w.message)]
    assert not [w for w in recwarn if str(w.message).startswith("Glyph")]
