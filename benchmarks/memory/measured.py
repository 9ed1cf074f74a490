"""What three steps of train.py really take on this machine."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.memory.activations import SavedBytes
from benchmarks.memory.job import Parts


class MemoryRecorder(L.Callback):
    """Writes what a fit has really taken: peak of the allocator, and what autograd kept.

    Args:
        path: A JSON file.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._on_gpu = pl_module.device.type == "cuda"
        if self._on_gpu:  # it counts by itself
            torch.cuda.reset_peak_memory_stats(pl_module.device)
            return
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._profile.__enter__()

    def on_train_batch_start(self, trainer: L.Trainer, task: L.LightningModule, *_: Any) -> None:
        self._saved = SavedBytes(task)
        self._saved.__enter__()

    def on_before_backward(self, trainer: L.Trainer, task: L.LightningModule, loss: Tensor) -> None:
        self._saved.__exit__(None, None, None)
        self._activations = sum(self._saved.sizes)
        self._saved.kept.clear()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        parameters = list(pl_module.parameters())
        (optimizer,) = trainer.optimizers
        kept = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
        weights = sum(p.numel() * p.element_size() for p in parameters)
        # On a CPU, the weights were there before the allocator was watched.
        peak = (
            torch.cuda.max_memory_allocated(pl_module.device)
            if self._on_gpu
            else weights + self._most()
        )
        seen = {
            "weights": weights,
            "optimizer": sum(tensor.numel() * tensor.element_size() for tensor in kept),
            "activations": self._activations,
            "peak": peak,
        }
        Path(self.path).write_text(json.dumps(seen))

    def _most(self) -> int:
        """Bytes that were taken at once since training started."""
        self._profile.__exit__(None, None, None)
        events = self._profile.profiler.kineto_results.events()  # type: ignore[union-attr]
        changes = sorted(
            (event.start_ns(), event.nbytes())  # type: ignore[union-attr]
            for event in events
            if event.name() == "[memory]"
        )
        alive = most = 0
        for _, change in changes:
            alive += change
            most = max(most, alive)
        return most


def measure(arguments: list[str], precision: str, compiles: bool, device: str = "cpu") -> Parts:
    """Three steps of train.py, in one process.

    Args:
        arguments: The configs and flags.
        precision: Lightning's name of it.
        compiles: The task may compile its net, which must be switched off.
        device: `cpu` or `cuda`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memory.json"
        recorder = {"class_path": "benchmarks.memory.measured.MemoryRecorder"}
        flags = {
            "--runs_dir": folder,
            "--test_after_fit": "false",
            **({"--model.compile": "false"} if compiles else {}),
            "--checkpoint.monitor": "null",
            "--trainer.max_steps": "3",
            "--trainer.limit_val_batches": "0",
            "--trainer.val_check_interval": "1.0",
            "--trainer.check_val_every_n_epoch": "1",
            "--trainer.accelerator": device,
            "--trainer.devices": "1",
            "--trainer.strategy": "auto",
            "--trainer.precision": precision,
            "--trainer.callbacks": json.dumps([recorder | {"init_args": {"path": str(path)}}]),
        }
        command = [sys.executable, "train.py", "fit", *arguments]
        command += [word for flag in flags.items() for word in flag]
        done = subprocess.run(command, capture_output=True, text=True)
        if not path.exists():
            raise MisconfigurationException(
                f"train.py ended with code {done.returncode}: {done.stderr.strip()[-600:]}"
            )
        found: Parts = json.loads(path.read_text())
        return found
