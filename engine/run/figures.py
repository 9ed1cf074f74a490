"""Write figures to the run folder and send them to the loggers that accept images."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any
from warnings import catch_warnings, filterwarnings

import numpy as np
from cycler import cycler
from lightning import Trainer
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from matplotlib import font_manager, rc_context, style
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

# Okabe and Ito's color-blind safe palette; each color has one meaning in all figures.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
SKY, PALE, INK = "#A6CBE3", "#D9D9D9", "#222222"

FONT = "DejaVu Sans"  # comes with matplotlib, so figures are the same on every machine

STYLE = {
    "figure.dpi": 150,
    "savefig.dpi": "figure",
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "font.family": [FONT],
    "font.size": 9,
    "figure.titlesize": 11,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9"]),
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "image.interpolation": "nearest",  # pixels are data here
}


def publish(trainer: Trainer, name: str, draw: Callable[[], Figure | None]) -> None:
    """Draw a figure, write `<run folder>/figures/<name>.png` and send it to the loggers.

    Every process must call this, since `trainer.log_dir` is a collective; only rank zero draws.
    Without a run folder no file is written, and the loggers still get the figure.

    Args:
        trainer: Its `log_dir` is the run folder.
        name: File name without suffix; the key at the loggers is `figures/<name>`.
        draw: Returns a `Figure`, or None if there is nothing to show. It must not use pyplot, whose
            global state keeps figures alive and depends on a display.
    """
    folder = trainer.log_dir
    if not trainer.is_global_zero:
        return
    png = render(draw)
    if png is None:
        return
    if folder is not None:
        path = Path(folder) / "figures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)
    _log_image(trainer, f"figures/{name}", Image.open(io.BytesIO(png)).convert("RGB"))


def render(draw: Callable[[], Figure | None]) -> bytes | None:
    """Return a figure as PNG, or None if there is nothing to show.

    Args:
        draw: See `publish`.
    """
    with style.context(["default", STYLE]):
        figure = draw()
        if figure is None:
            return None
        png = _save(figure)
        missing = _missing_glyphs(figure)
        if not missing:
            return png
        fonts = _fonts_with(missing)
        with rc_context({"font.family": [FONT, *fonts]}):
            return _save(draw() or figure)


def _save(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with catch_warnings():
        filterwarnings("ignore", "Glyph")  # see `_fonts_with`
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _missing_glyphs(figure: Figure) -> set[str]:
    """Return the characters of a drawn figure that the default font lacks."""
    texts: list[Any] = figure.findobj(Text)
    characters = {c for text in texts for c in text.get_text() if ord(c) > 127}
    return _missing_in(font_manager.findfont(FONT), characters)


def _missing_in(font_file: str, characters: set[str]) -> set[str]:
    if not characters:
        return set()
    font = font_manager.get_font(font_file)
    return {c for c in characters if not font.get_char_index(ord(c))}


def _fonts_with(characters: set[str]) -> list[str]:
    """Return installed font families that together have the characters; warn if there are none."""
    families: list[str] = []
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: entry.fname):
        if not characters:
            return families
        if entry.name.startswith("Last Resort"):  # has only placeholder glyphs
            continue
        missing = _missing_in(entry.fname, characters)
        if missing < characters:
            families.append(entry.name)
            characters = missing
    if characters:
        rank_zero_warn(
            f"figures: no installed font has the characters {' '.join(sorted(characters))}; they "
            "are drawn as boxes. Install a font that has them, such as Noto Sans CJK."
        )
    return families


def short_names(class_names: list[str]) -> list[str]:
    """Return class names shortened for captions of small images."""
    names = [f"{name[:13]}…" if len(name) > 14 else name for name in map(str, class_names)]
    return [name.replace("$", r"\$") for name in names]  # no mathematics between two of them


def _log_image(trainer: Trainer, key: str, image: Image.Image) -> None:
    # Lightning's logger classes import wandb, tensorboard or mlflow only when instantiated.
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [image])
        elif isinstance(logger, TensorBoardLogger):
            pixels = np.asarray(image)  # (H, W, 3)
            logger.experiment.add_image(key, pixels, trainer.global_step, dataformats="HWC")
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, image, artifact_file=f"{key}.png")
