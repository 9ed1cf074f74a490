"""What two processes run by DeepSpeed, on CPUs: `many_devices.start(2, folder, __file__)`.

Lightning refuses DeepSpeed there, and the command line says so before it does. But nothing of what
they do together needs a GPU: this program takes both refusals away, and what is left is the very
strategy, engine and checkpoints of a run on GPUs, in float32 by gloo. Afterwards there are run
folders in the folder.
"""

import argparse
import contextlib
import importlib
import os
import types
from typing import Any

from tests.support.many_devices import AUTO, CRASH, EXPERIMENTS, GPT, ROOT, TWO


def zero(stage: int) -> tuple:
    overlay = ROOT / f"configs/trainer/deepspeed_zero{stage}.yaml"
    return ("--config", overlay, *TWO, "--trainer.accelerator", "cpu")


HERE = ("--trainer.precision", "32-true")
# Name of a run → what is run for it, one after the other.
RUNS: dict[str, tuple[tuple, ...]] = {
    "gpt-zero2": ((*GPT, *zero(2), *HERE),),
    "gpt-zero3": ((*GPT, *zero(3), *HERE),),
    "accumulated-zero2": ((*EXPERIMENTS["accumulated"], *zero(2), *HERE),),
    "accumulated-zero3": ((*EXPERIMENTS["accumulated"], *zero(3), *HERE),),
    "stopped-zero2": ((*GPT, *zero(2), *HERE, *CRASH), (*GPT, *zero(2), *HERE, *AUTO)),
    "stopped-zero3": ((*GPT, *zero(3), *HERE, *CRASH), (*GPT, *zero(3), *HERE, *AUTO)),
}


def take_refusals_away() -> None:
    import lightning.pytorch.strategies.deepspeed as theirs
    from lightning.pytorch.accelerators import CPUAccelerator

    import cli.command_line

    class Arguments(argparse.Namespace):
        """A CPU has no number, which DeepSpeed writes -1 and not None."""

        def __init__(self, device_rank: int | None) -> None:
            super().__init__(device_rank=-1 if device_rank is None else device_rank)

    # What it would compile first, for minutes, is for several processes of one machine.
    importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None  # type: ignore[attr-defined]
    patched: Any = theirs
    patched.CUDAAccelerator = CPUAccelerator
    patched._validate_device_index_selection = lambda devices: None
    patched.argparse = types.SimpleNamespace(Namespace=Arguments)
    cli.check_devices = lambda *_: None  # type: ignore[assignment]


def work() -> None:
    import torch

    import train
    from tests.support.resume import Crash

    torch.set_num_threads(1)
    take_refusals_away()
    for name, commands in RUNS.items():
        for arguments in commands:
            with contextlib.suppress(Crash):
                train.main([str(a) for a in ("fit", *arguments, "--experiment", name)])


if __name__ == "__main__":
    os.environ["DS_ACCELERATOR"] = "cpu"
    work()
