"""Train with DeepSpeed on CPUs in two processes: `many_devices.start(2, folder, __file__)`.

Lightning and our command line refuse DeepSpeed on CPUs, though nothing that is tested needs a GPU.
This program removes both checks; strategy, engine and checkpoints are those of a run on GPUs, in
float32 with gloo. It leaves run folders in the folder.
"""

import argparse
import contextlib
import importlib
import os
import sys
import types
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent.parent)]  # this file is run as a program

from tests.support.many_devices import AUTO, CRASH, EXPERIMENTS, GPT, ROOT, TWO  # noqa: E402


def zero(stage: int) -> tuple:
    overlay = ROOT / f"configs/trainer/deepspeed_zero{stage}.yaml"
    return ("--config", overlay, *TWO, "--trainer.accelerator", "cpu")


HERE = ("--trainer.precision", "32-true")
# Run → its command lines, one after the other.
RUNS: dict[str, tuple[tuple, ...]] = {
    "gpt-zero2": ((*GPT, *zero(2), *HERE),),
    "gpt-zero3": ((*GPT, *zero(3), *HERE),),
    "accumulated-zero2": ((*EXPERIMENTS["accumulated"], *zero(2), *HERE),),
    "accumulated-zero3": ((*EXPERIMENTS["accumulated"], *zero(3), *HERE),),
    "stopped-zero2": ((*GPT, *zero(2), *HERE, *CRASH), (*GPT, *zero(2), *HERE, *AUTO)),
    "stopped-zero3": ((*GPT, *zero(3), *HERE, *CRASH), (*GPT, *zero(3), *HERE, *AUTO)),
}


def remove_device_checks() -> None:
    import lightning.pytorch.strategies.deepspeed as theirs
    from lightning.pytorch.accelerators import CPUAccelerator

    import cli.checks

    class Arguments(argparse.Namespace):
        """A CPU has no index, for which DeepSpeed expects -1 instead of None."""

        def __init__(self, device_rank: int | None) -> None:
            super().__init__(device_rank=-1 if device_rank is None else device_rank)

    # DeepSpeed would compile a shared-memory operator for minutes.
    importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None  # type: ignore[attr-defined]
    patched: Any = theirs
    patched.CUDAAccelerator = CPUAccelerator
    patched._validate_device_index_selection = lambda devices: None
    patched.argparse = types.SimpleNamespace(Namespace=Arguments)
    cli.checks.check_devices = lambda *_: None  # type: ignore[assignment]


def work() -> None:
    import torch

    import train
    from tests.support.resume import Crash

    torch.set_num_threads(1)
    remove_device_checks()
    for name, commands in RUNS.items():
        for arguments in commands:
            with contextlib.suppress(Crash):
                train.main([str(a) for a in ("fit", *arguments, "--experiment", name)])


if __name__ == "__main__":
    os.environ["DS_ACCELERATOR"] = "cpu"
    work()
