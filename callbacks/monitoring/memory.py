"""Log the memory that training uses."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from engine.run.step_metrics import log_step, step_is_done, step_is_logged

GIB = 2**30


class Memory(Callback):
    """Log memory in GiB every `trainer.log_every_n_steps`, the maximum over all processes.

    | name | meaning |
    | --- | --- |
    | `memory/process_gib` | resident memory of the process (Linux only) |
    | `memory/allocated_gib` | tensors on the GPU |
    | `memory/reserved_gib` | GPU memory reserved by PyTorch's allocator |
    | `memory/peak_gib` | peak of the tensors on the GPU so far |

    Lightning's DeviceStatsMonitor logs the load and memory of the whole machine on CPUs, and all
    statistics of the allocator on GPUs, for each process separately.
    """

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if not step_is_logged(trainer) or not step_is_done(trainer):
            return
        metrics = memory_in_gib(pl_module.device)
        values = torch.tensor([*metrics.values()], device=pl_module.device)
        maximum: Any = trainer.strategy.reduce(values, reduce_op="max")
        log_step(trainer, dict(zip(metrics, maximum.tolist(), strict=True)))


def memory_in_gib(device: torch.device) -> dict[str, float]:
    """Return the memory that this process uses now, by metric name."""
    metrics: dict[str, float] = {}
    statm = Path("/proc/self/statm")
    if statm.exists():
        resident = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        metrics["memory/process_gib"] = resident / GIB
    if device.type == "cuda":
        metrics["memory/allocated_gib"] = torch.cuda.memory_allocated(device) / GIB
        metrics["memory/reserved_gib"] = torch.cuda.memory_reserved(device) / GIB
        metrics["memory/peak_gib"] = torch.cuda.max_memory_allocated(device) / GIB
    return metrics
