"""Measure the memory of three steps of train.py on this machine."""

import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

import lightning as L
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.memory.activations import SavedBytes
from benchmarks.memory.job import Job, Parts
from engine.errors import UserError


class AllocationPeak:
    """Context that measures the peak of bytes that PyTorch allocates on the CPU within it."""

    bytes: int

    def __enter__(self) -> Self:
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._profile.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._profile.__exit__(None, None, None)
        events = self._profile.profiler.kineto_results.events()  # type: ignore[union-attr]
        changes = sorted(
            (event.start_ns(), event.nbytes())  # type: ignore[union-attr]
            for event in events
            if event.name() == "[memory]"
        )
        allocated = itertools.accumulate(change for _, change in changes)
        self.bytes = max(allocated, default=0)


class MemoryRecorder(L.Callback):
    """Write the measured memory of a fit: peak of the allocator and tensors saved by autograd.

    Args:
        path: JSON file to write.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._on_gpu = pl_module.device.type == "cuda"
        if self._on_gpu:  # the CUDA allocator tracks its peak
            torch.cuda.reset_peak_memory_stats(pl_module.device)
            return
        self._allocated = AllocationPeak().__enter__()

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
        state = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
        weights = sum(p.numel() * p.element_size() for p in parameters)
        if self._on_gpu:
            peak = torch.cuda.max_memory_allocated(pl_module.device)
        else:  # the weights were allocated before
            self._allocated.__exit__()
            peak = weights + self._allocated.bytes
        measured = {
            "weights": weights,
            "optimizer": sum(tensor.numel() * tensor.element_size() for tensor in state),
            "activations": self._activations,
            "peak": peak,
        }
        Path(self.path).write_text(json.dumps(measured))


def measure(arguments: list[str], job: Job, compiles: bool) -> Parts:
    """Run three steps of train.py in one process and return the measured memory.

    Args:
        arguments: Configs and flags.
        job: The job of these arguments; gives precision, device and activation checkpointing.
        compiles: Whether the task has an argument `compile`, which is set to false.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memory.json"
        callbacks: list[dict[str, Any]] = [
            {
                "class_path": "benchmarks.memory.measured.MemoryRecorder",
                "init_args": {"path": str(path)},
            }
        ]
        if job.checkpointing:
            options = {"mode": job.checkpointing, "every": job.checkpoint_every}
            callbacks.append(
                {"class_path": "callbacks.ActivationCheckpointing", "init_args": options}
            )
        flags = {
            "--runs_dir": folder,
            "--test_after_fit": "false",
            **({"--model.compile": "false"} if compiles else {}),
            "--checkpoint.monitor": "null",
            "--trainer.max_steps": "3",
            "--trainer.limit_val_batches": "0",
            "--trainer.val_check_interval": "1.0",
            "--trainer.check_val_every_n_epoch": "1",
            "--trainer.accelerator": job.device,
            "--trainer.devices": "1",
            "--trainer.strategy": "auto",
            "--trainer.precision": job.precision,
            "--trainer.callbacks": json.dumps(callbacks),
        }
        command = [sys.executable, "train.py", "fit", *arguments]
        command += [word for flag in flags.items() for word in flag]
        done = subprocess.run(command, capture_output=True, text=True)
        if not path.exists():
            raise UserError(
                f"train.py exited with code {done.returncode}: {done.stderr.strip()[-600:]}"
            )
        result: Parts = json.loads(path.read_text())
        return result
