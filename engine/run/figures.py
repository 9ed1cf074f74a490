"""The one door for a figure: a PNG in the run folder, and a copy to every logger that takes it."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cycler import cycler
from lightning import Trainer
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib import style
from matplotlib.figure import Figure
from PIL import Image

# Okabe & Ito's colours, told apart by colour-blind eyes too. One meaning each, in all our figures.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
SKY, PALE, INK = "#A6CBE3", "#D9D9D9", "#222222"

STYLE = {
    "figure.dpi": 150,
    "savefig.dpi": "figure",
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
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
    """Draws a figure in the house's style, writes `<run folder>/figures/<name>.png`, tells loggers.

    Every process must call this (`trainer.log_dir` is a broadcast); only rank zero draws. Without a
    run folder no file is written, and the loggers still get the picture.

    Args:
        trainer: Its `log_dir` is the run folder.
        name: File name without suffix; loggers see `figures/<name>`.
        draw: Makes the figure. It builds a `Figure` and never touches pyplot, whose global state
            would keep every figure alive and depend on a display. None means nothing to show.
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
    _tell_loggers(trainer, f"figures/{name}", Image.open(io.BytesIO(png)).convert("RGB"))


def render(draw: Callable[[], Figure | None]) -> bytes | None:
    """The PNG of a figure in the house's style; None when there is nothing to show.

    Args:
        draw: See `publish`.
    """
    with style.context(["default", STYLE]):
        figure = draw()
        if figure is None:
            return None
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def short_names(class_names: list[str]) -> list[str]:
    """Names of classes as they stand above a small picture."""
    names = [f"{name[:13]}…" if len(name) > 14 else name for name in map(str, class_names)]
    return [name.replace("$", r"\$") for name in names]  # a pair would be mathematics


def _tell_loggers(trainer: Trainer, key: str, picture: Image.Image) -> None:
    # Lightning's logger classes import wandb, tensorboard or mlflow only once they are created.
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [picture])
        elif isinstance(logger, TensorBoardLogger):
            pixels = np.asarray(picture)  # (H, W, 3)
            logger.experiment.add_image(key, pixels, trainer.global_step, dataformats="HWC")
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, picture, artifact_file=f"{key}.png")
