"""What a run leaves behind in its folder: `config.yaml` at the start, `results.json` at the end."""

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from engine.run.folder import run_folder
from engine.run.throughput import samples_and_tokens
from engine.run.trackers import log_config

PACKAGES = ("lightning", "torch", "torchmetrics", "torchvision", "transformers", "numpy")


class RunRecord(SaveConfigCallback):
    """Write the resolved config, measure the run, and hold its results against the promises.

    `config.yaml` can be given to train.py again; git commit and versions stand in its head. The
    loggers receive the same values, so a tracker knows how to repeat what it shows.

    Args:
        parser: LightningCLI's parser of the subcommand.
        config: Everything that the run was told, and every default.
        expectations: Metric to expectation, the config's `expect`.
        origin: What else is to be told of where the run comes from, such as study and trial.
        resumed: Whether fit resumes a run; its `config.yaml` stays until the first batch.
    """

    def __init__(
        self,
        parser: LightningArgumentParser,
        config: Namespace,
        expectations: Mapping[str, str],
        origin: Mapping[str, Any],
        resumed: bool = False,
    ) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self.expectations = dict(expectations)
        self.origin = dict(origin)
        self.resumed = resumed
        self.seconds = 0.0  # from the start to the end of fit, validation and checkpoints included
        self._training_seconds = 0.0  # without validation
        self._started = self._resumed = time.perf_counter()
        self._samples = self._tokens = 0
        self._over = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if not self.resumed:  # otherwise its config changes once it trains
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """On rank zero, before anything else happens."""
        text = self.parser.dump(self.config, skip_none=False)
        facts = {**self.origin, "git commit": git_commit(), **versions()}
        head = "".join(f"# {name}: {value}\n" for name, value in facts.items())
        (run_folder(trainer) / "config.yaml").write_text(head + text)
        record = {**self.origin, "git_commit": git_commit(), "versions": versions()}
        record |= yaml.safe_load(text)
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):  # its folder has the config already
                log_config(logger, record)

    def state_dict(self) -> dict[str, float]:
        """What a run that goes on adds to."""
        now = time.perf_counter()
        return {
            "seconds": self.seconds + now - self._started,
            "training_seconds": self._training_seconds + now - self._resumed,
            "samples": self._samples,
            "tokens": self._tokens,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._over:  # the best weights are loaded, to be tested: what they took is not asked
            return
        self.seconds = state_dict["seconds"]
        self._training_seconds = state_dict["training_seconds"]
        self._samples, self._tokens = state_dict["samples"], state_dict["tokens"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = self._resumed = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._save_config_of_resumed(trainer, pl_module)
        rows, tokens = samples_and_tokens(batch)
        self._samples += rows
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
        self._over = True

    def write_results(self, trainer: L.Trainer, metrics: Mapping[str, float]) -> None:
        """Write `results.json` on rank zero.

        Args:
            trainer: The trainer, after all that it had to do.
            metrics: The final metrics.
        """
        if not trainer.is_global_zero:
            return
        module = trainer.lightning_module
        net = getattr(module, "net", module)
        results: dict[str, Any] = {
            **self.origin,
            "metrics": dict(metrics),
            "expect": {
                name: {"promise": promise, "seen": metrics.get(name)}
                for name, promise in self.expectations.items()
            },
            "net": type(net).__name__,
            "parameters": count_parameters(net),
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "seconds": round(self.seconds, 3),
        }
        if self._training_seconds:
            told = trainer.distributed_sampler_kwargs  # of the processes that see other rows
            scale = (told["num_replicas"] if told else 1) / self._training_seconds
            results["samples_per_second"] = round(self._samples * scale, 1)
            if self._tokens:
                results["tokens_per_second"] = round(self._tokens * scale, 1)
        results |= {
            "machine": describe_machine(trainer),
            "git_commit": git_commit(),
            "date": time.strftime("%Y-%m-%d"),
            "versions": versions(),
            "config": yaml.safe_load(self.parser.dump(self.config, skip_none=False)),
        }
        target = run_folder(trainer) / "results.json"
        partial = target.with_suffix(".part")
        partial.write_text(json.dumps(results, indent=2) + "\n")
        partial.replace(target)


def count_parameters(net: nn.Module) -> int:
    """Weights of a net, those of other processes included: DeepSpeed leaves none where it cuts."""
    return sum(getattr(weight, "ds_numel", weight.numel()) for weight in net.parameters())


def git_commit() -> str:
    """The commit of the code that runs, `+changes` where files differ from it."""
    # The table of results changes while reproduce.py runs: it is no code.
    changes = ("git", "status", "--porcelain", "--", ".", ":!docs/results.md")
    where = {"cwd": Path(__file__).parent.parent.parent, "capture_output": True, "text": True}
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, **where)  # type: ignore[call-overload]
        status = subprocess.run([*changes], check=True, **where)  # type: ignore[call-overload]
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git repository)"
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    return found | {name: _version(name) for name in PACKAGES}


@cache  # each looks through the folders of all packages
def _version(package: str) -> str:
    return importlib.metadata.version(package)


def describe_machine(trainer: L.Trainer) -> str:
    """Devices and their kind, in words."""
    number = trainer.world_size
    if torch.cuda.is_available() and trainer.strategy.root_device.type == "cuda":
        return f"{number} x {torch.cuda.get_device_name(0)}"
    processes = f"{number} process{'es' if number > 1 else ''}"
    processes += f" of {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"
    return f"{processes} on {os.cpu_count()} CPU cores ({platform.machine()})"
