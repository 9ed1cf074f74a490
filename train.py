"""Train, validate, test or predict: one command, config files in, a run folder out.

    python train.py fit      --config configs/digits/cnn.yaml
    python train.py fit      --config configs/mnist/cnn.yaml --config configs/logger/wandb.yaml
    python train.py fit      --config configs/mnist/cnn.yaml --trainer.max_epochs 3
    python train.py fit      --resume runs/mnist-cnn/001
    python train.py validate --config runs/…/config.yaml --ckpt_path runs/…/checkpoints/best.ckpt
    python train.py test     --config runs/…/config.yaml --ckpt_path runs/…/checkpoints/best.ckpt
    python train.py predict  --config runs/…/config.yaml --ckpt_path runs/…/checkpoints/best.ckpt

Later configs and flags override earlier ones. `python train.py fit --help` lists every key,
configs/ holds the experiments, and configs/trainer/ and configs/logger/ what stacks on them.
"""

import ctypes
import logging
import os
import sys
import warnings
from pathlib import Path

HELP: tuple[list[str], ...] = ([], ["-h"], ["--help"])


def prepare_process() -> None:
    """Settings of the whole process: speed first, then silence about what is meant to be so."""
    import torch
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # TF32
    else:
        # Importing lightning turns on a check by NVML that fails anew in every optimizer step.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
        keep_freed_memory()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if "SLURM_JOB_ID" not in os.environ:  # a machine that has SLURM, and a run that is no job
        warnings.filterwarnings(
            "ignore", message=".*The `srun` command is available on your system"
        )
    if "RANK" not in os.environ and (node := int(os.environ.get("NODE_RANK", 0))):
        # Processes started by hand on a second node: Lightning takes each node's first for rank 0
        # until they have joined, and it would make a run folder of its own.
        rank_zero_only.rank = node  # type: ignore[attr-defined]
    # It says which process died before it ends all the others.
    launcher = "lightning.fabric.strategies.launchers.subprocess_script"
    logging.getLogger(launcher).setLevel(logging.INFO)
    for message in (
        ".*does not have many workers",  # data in memory need none
        ".*is smaller than the logging interval",
        ".*It is recommended to use `self.log.*sync_dist=True",  # torchmetrics has done it
        ".*Couldn't infer the batch indices",  # predictions keep the order of the rows
        ".*treespec, LeafSpec.*",
        ".*LightningCLI's args parameter",  # main(args) from Python is meant
        ".*Experiment logs directory .* exists and is not empty",
        ".*Checkpoint directory .* exists and is not empty",
        ".*a model that overrides the configure_model",  # sharded averages are refused
        ".*when using `ckpt_path`, callbacks used to create the checkpoint",  # not to evaluate
        ".*SWA is currently only supported every epoch",  # it takes the place of any schedule
        ".*The dirpath has changed from",  # a run that goes on has a folder of its own
    ):
        warnings.filterwarnings("ignore", message=message)


def keep_freed_memory() -> None:
    """Let glibc reuse the memory of large tensors instead of giving it back after each step.

    Asking the system for it anew costs a page fault for every 4 KB, in every step. The settings are
    M_MMAP_THRESHOLD (-3), 32 MB at most, and M_TRIM_THRESHOLD (-1), see mallopt(3).
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another libc: it does as it does
        return
    mallopt(-3, 32 * 2**20)
    mallopt(-1, 2**31 - 1)


def main(args: list[str] | None = None) -> Path | None:
    """Run the command line; the same from Python: `main(["fit", "--config", …])`.

    Args:
        args: Arguments; those of the process by default.

    Returns:
        The run folder, on rank zero.

    Raises:
        SystemExit: With code 2 after a user's mistake, told in one paragraph on stderr; with 74
            when a disk is full, 75 when a signal stopped training, 76 when another process has died
            (`--resume` goes on after each); with 0 after a call for help.
    """
    if (sys.argv[1:] if args is None else args) in HELP:
        print(__doc__)  # at once: what comes next takes seconds to import
        sys.exit(0)
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    from callbacks.full_disk import DiskFull
    from callbacks.peers import Lost
    from callbacks.preemption import Preempted
    from cli import CLI
    from user_errors import exit_on_user_error

    prepare_process()
    try:
        with exit_on_user_error("train.py"):
            return CLI.of(args).run_folder
    except (Preempted, Lost, DiskFull) as stop:
        if getattr(rank_zero_only, "rank", 0) == 0 or not isinstance(stop, Preempted):
            sys.stderr.write(f"train.py: {stop}\n")
        sys.exit(stop.exit_code)


if __name__ == "__main__":
    main()
