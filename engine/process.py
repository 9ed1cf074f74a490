"""Settings of the whole process: threads, memory, warnings."""

import ctypes
import logging
import os
import warnings


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
