"""How much memory a training takes."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from engine.run.step_metrics import log_step, step_is_done, step_is_logged

GIB = 2**30


class Memory(Callback):
    """Logs memory in GiB every `trainer.log_every_n_steps`; of several processes, the largest.

    | name | what it is |
    | --- | --- |
    | `memory/process_gib` | what the process holds in the machine's memory (Linux only) |
    | `memory/allocated_gib` | tensors on the GPU |
    | `memory/reserved_gib` | what PyTorch has taken of the GPU, for tensors now and later |
    | `memory/peak_gib` | most that tensors took on the GPU so far |
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
        found = memory_in_gib(pl_module.device)
        values = torch.tensor(list(found.values()), device=pl_module.device)
        most: Any = trainer.strategy.reduce(values, reduce_op="max")
        log_step(trainer, dict(zip(found, most.tolist(), strict=True)))


def memory_in_gib(device: torch.device) -> dict[str, float]:
    """What this process holds now, by the names under which it is logged."""
    found: dict[str, float] = {}
    pages = Path("/proc/self/statm")
    if pages.exists():
        size = int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        found["memory/process_gib"] = size / GIB
    if device.type == "cuda":
        found["memory/allocated_gib"] = torch.cuda.memory_allocated(device) / GIB
        found["memory/reserved_gib"] = torch.cuda.memory_reserved(device) / GIB
        found["memory/peak_gib"] = torch.cuda.max_memory_allocated(device) / GIB
    return found
