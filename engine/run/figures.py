"""Write figures to the run folder and send them to the loggers that accept images."""

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

# Okabe and Ito's color-blind safe palette; each color has one meaning in all figures.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
SKY, PALE, INK = "#A6CBE3", "#D9D9D9", "#222222"

STYLE = {
    "figure.dpi": 150,
    "savefig.dpi": "figure",
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # comes with matplotlib: figures are the same on every machine
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
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def short_names(class_names: list[str]) -> list[str]:
    """Return class names shortened for captions of small images."""
    names = [f"{name[:13]}…" if len(name) > 14 else name for name in map(str, class_names)]
    return [
        name.replace("$", r"\$") for name in names
    ]  # matplotlib would typeset mathematics between them


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
