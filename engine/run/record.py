"""Records of a run: `config.yaml` at its start and `results.json` at its end."""

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger
from torch import nn

from engine.run.config_text import dump_config, load_yaml
from engine.run.datasets import data_checksum, log_dataset
from engine.run.expectations import Judgment
from engine.run.folder import run_folder
from engine.run.throughput import samples_and_tokens
from engine.run.trackers import log_config, mlflow_lock

PACKAGES = ("lightning", "torch", "torchmetrics", "torchvision", "transformers", "numpy")


class RunRecord(SaveConfigCallback):
    """Write the resolved config, measure time and throughput, and write the results.

    `config.yaml` is a config for train.py; its first lines are comments with git commit and
    versions. Loggers other than the run's CSV logger receive the same values.

    Args:
        parser: LightningCLI's parser of the subcommand.
        config: The parsed config, defaults included.
        origin: Further facts about the run, such as study and trial.
        resumed: Whether fit resumes a run; its `config.yaml` stays until the first batch.
    """

    def __init__(
        self,
        parser: LightningArgumentParser,
        config: Namespace,
        origin: Mapping[str, Any],
        resumed: bool = False,
    ) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self.origin = dict(origin)
        self.resumed = resumed
        self.seconds = 0.0  # of fit, including validation and checkpoints
        self._training_seconds = 0.0  # excluding validation
        self._started = self._resumed = time.perf_counter()
        self._samples = self._tokens = 0
        self._finished = False
        self._data_checksum: str | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if not self.resumed:  # otherwise its config changes once it trains
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write `config.yaml` and log it; Lightning calls this on rank zero only."""
        facts = {**self.origin, "git commit": git_commit(), **versions()}
        head = "".join(f"# {name}: {value}\n" for name, value in facts.items())
        (run_folder(trainer) / "config.yaml").write_text(head + self._text, encoding="utf-8")
        record = {**self.origin, "git_commit": git_commit(), "versions": versions()}
        record |= load_yaml(self._text)
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):  # config.yaml is next to its metrics.csv
                log_config(logger, record)

    @cached_property
    def _text(self) -> str:
        return dump_config(self.parser, self.config)

    def state_dict(self) -> dict[str, float]:
        """Return the totals so far; a resumed run continues from them."""
        now = time.perf_counter()
        return {
            "seconds": self.seconds + now - self._started,
            "training_seconds": self._training_seconds + now - self._resumed,
            "samples": self._samples,
            "tokens": self._tokens,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if (
            self._finished
        ):  # the best checkpoint is loaded for evaluation: keep the totals of the whole run
            return
        self.seconds = state_dict["seconds"]
        self._training_seconds = state_dict["training_seconds"]
        self._samples, self._tokens = state_dict["samples"], state_dict["tokens"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self._log_data(trainer)
        self._started = self._resumed = time.perf_counter()
        if 0 < (steps := trainer.estimated_stepping_batches) < trainer.log_every_n_steps:  # type: ignore[attr-defined]
            trainer.log_every_n_steps = int(steps)  # type: ignore[attr-defined]  # otherwise none is logged

    def _log_data(self, trainer: L.Trainer) -> None:
        self._data_checksum = data_checksum(trainer.datamodule)  # type: ignore[attr-defined]
        for logger in trainer.loggers:
            if isinstance(logger, MLFlowLogger) and self._data_checksum:
                with mlflow_lock(run_folder(trainer)):
                    log_dataset(logger, load_yaml(self._text)["data"], self._data_checksum)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._save_config_of_resumed(trainer, pl_module)
        samples, tokens = samples_and_tokens(batch)
        self._samples += samples
        self._tokens += tokens

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save_config_of_resumed(trainer, pl_module)  # of a run that was complete already

    def _save_config_of_resumed(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.already_saved:
            self.already_saved = True
            if trainer.is_global_zero:
                self.save_config(trainer, pl_module, "fit")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._training_seconds += time.perf_counter() - self._resumed

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._resumed = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        now = time.perf_counter()
        self._training_seconds += now - self._resumed
        self.seconds += now - self._started
        self._started = self._resumed = now
        self._finished = True

    def write_results(
        self,
        trainer: L.Trainer,
        metrics: Mapping[str, float],
        judgments: Mapping[str, Judgment],
    ) -> None:
        """Write `results.json` on rank zero.

        Args:
            trainer: The trainer, after fit and evaluation.
            metrics: The final metrics.
            judgments: Metric to the comparison with what the config expects.
        """
        if not trainer.is_global_zero:
            return
        module = trainer.lightning_module
        net = getattr(module, "net", module)
        results: dict[str, Any] = {
            **self.origin,
            "metrics": dict(metrics),
            "expect": {name: asdict(judgment) for name, judgment in judgments.items()},
            "net": type(net).__name__,
            "parameters": count_parameters(net),
            "trainable_parameters": count_parameters(net, trainable_only=True),
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "seconds": round(self.seconds, 3),
        }
        if self._training_seconds:
            data_parallel = trainer.distributed_sampler_kwargs or {}
            scale = data_parallel.get("num_replicas", 1) / self._training_seconds
            if self._samples:
                results["samples_per_second"] = round(self._samples * scale, 1)
            if self._tokens:
                results["tokens_per_second"] = round(self._tokens * scale, 1)
        results |= {
            "machine": describe_machine(trainer),
            "git_commit": git_commit(),
            "data_checksum": self._data_checksum,
            "date": time.strftime("%Y-%m-%d"),
            "versions": versions(),
            "config": load_yaml(self._text),
        }
        target = run_folder(trainer) / "results.json"
        partial = target.with_suffix(".part")
        partial.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        partial.replace(target)


def count_parameters(net: nn.Module, trainable_only: bool = False) -> int:
    """Return the number of parameters, including those that DeepSpeed keeps on other ranks."""
    weights = (p for p in net.parameters() if p.requires_grad or not trainable_only)
    return sum(getattr(weight, "ds_numel", weight.numel()) for weight in weights)


@cache  # the code that runs is that at the first call
def git_commit() -> str:
    """Return the commit of this code, with `+changes` if files differ from it."""
    # reproduce.py writes docs/results.md, and dvc its lock; these are no changes of the code.
    written = (":!docs/results.md", ":!dvc.lock")
    changes = ("git", "status", "--porcelain", "--", ".", *written)
    where = {"cwd": Path(__file__).parent.parent.parent, "capture_output": True, "text": True}
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, **where)  # type: ignore[call-overload]
        status = subprocess.run([*changes], check=True, **where)  # type: ignore[call-overload]
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git repository)"
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results."""
    found = {"python": platform.python_version()}
    return found | {name: _version(name) for name in PACKAGES}


@cache  # each call searches all installed packages
def _version(package: str) -> str:
    return importlib.metadata.version(package)


def describe_devices(trainer: L.Trainer) -> str:
    """Return number and kind of the devices, such as "1 process, 2 threads"."""
    number = trainer.world_size
    if torch.cuda.is_available() and trainer.strategy.root_device.type == "cuda":
        return f"{number} x {torch.cuda.get_device_name(0)}"
    threads = torch.get_num_threads()
    processes = f"{number} process{'es' if number > 1 else ''}"
    each = " each" if number > 1 else ""
    return f"{processes}, {threads} thread{'s' if threads > 1 else ''}{each}"


def describe_machine(trainer: L.Trainer) -> str:
    """Return the devices, and for CPUs the number of cores and the architecture."""
    devices = describe_devices(trainer)
    if trainer.strategy.root_device.type == "cuda":
        return devices
    return f"{devices}, {os.cpu_count()} CPU cores ({platform.machine()})"
