"""The run folder `runs/<experiment>/<version>/`: where it is, and how loggers are told."""

import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import lightning as L
from lightning.pytorch.loggers import CSVLogger


def new_run_folder(runs_dir: Path, experiment: str) -> Path:
    """Make the experiment's next numbered folder: 001, 002, …; never one that is there already."""
    parent = runs_dir / experiment
    parent.mkdir(parents=True, exist_ok=True)
    number = max((int(p.name) for p in parent.iterdir() if p.name.isdigit()), default=0)
    while True:
        number += 1
        folder = parent / f"{number:03d}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # another run took it in this very moment
            continue
        return folder


def experiment_name(configs: Sequence[str | Path]) -> str:
    """`configs/mnist/cnn.yaml` is the experiment `mnist-cnn`; overlays add nothing."""
    if not configs:
        return "unnamed"
    experiments = [path for path in configs if Path(path).parts[-3:-1] != ("configs", "trainer")]
    path = Path([*experiments, *configs][0]).with_suffix("")
    parts = path.parts
    if "configs" in parts:
        parts = parts[len(parts) - parts[::-1].index("configs") :]
        return "-".join(parts)
    return path.name


def run_folder(trainer: L.Trainer) -> Path:
    """The folder of a trainer's run. Only rank zero knows it without asking the others."""
    (folder,) = [logger.log_dir for logger in trainer.loggers if isinstance(logger, CSVLogger)]
    return Path(folder)


def fill_in(logger: Any, folder: Path) -> None:
    """Put the run folder into a logger's config, and keep W&B offline where it can't be reached.

    `{run_folder}`, `{runs_dir}`, `{experiment}` and `{version}` in its arguments are replaced.

    Args:
        logger: `trainer.logger` of a parsed config: one class_path with init_args, or several.
        folder: The run folder.
    """
    if isinstance(logger, list):
        for one in logger:
            fill_in(one, folder)
        return
    if not hasattr(logger, "init_args"):
        return
    places = {
        "run_folder": str(folder),
        "runs_dir": str(folder.parent.parent),
        "experiment": folder.parent.name,
        "version": folder.name,
    }
    for name, value in vars(logger.init_args).items():
        if isinstance(value, str):
            logger.init_args[name] = value.format_map(places)
    if logger.class_path.endswith("WandbLogger") and not logger.init_args.offline:
        reason = _wandb_out_of_reach()
        if reason:
            logger.init_args.offline = True
            logger.init_args.mode = "offline"  # wandb has read its environment by now
            logger.init_args.settings = {"silent": True}  # the next line says it all
            upload = f"wandb sync {folder}/wandb/offline-run-*"
            sys.stderr.write(f"W&B stays offline: {reason}. `{upload}` uploads the run.\n")


def _wandb_out_of_reach() -> str | None:
    import wandb  # half a second: only for those who log there

    if wandb.setup().settings.mode in ("offline", "disabled"):
        return f"WANDB_MODE is {wandb.setup().settings.mode}"
    if not wandb.login(prompt=False):
        return "there is no API key (`wandb login`)"
    url = urlsplit(wandb.setup().settings.base_url)
    try:
        socket.create_connection((url.hostname or "", url.port or 443), timeout=5).close()
    except OSError as error:
        return f"{url.hostname} can't be reached ({error})"
    return None
