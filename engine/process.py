"""Settings of the whole process: console encoding, threads, memory, warnings."""

import ctypes
import io
import logging
import os
import sys
import warnings
from pathlib import Path

PROJECT = Path(__file__).parent.parent
EXPECTED_WARNINGS = (
    ".*does not have many workers",  # data in memory need none
    ".*is smaller than the logging interval",
    ".*It is recommended to use `self.log.*sync_dist=True",  # torchmetrics synchronizes
    ".*Couldn't infer the batch indices",  # predictions keep the order of the data
    ".*treespec, LeafSpec.*",
    ".*LightningCLI's args parameter",  # main(args) called from Python
    ".*Experiment logs directory .* exists and is not empty",
    ".*Checkpoint directory .* exists and is not empty",
    ".*a model that overrides the configure_model",  # averages of sharded weights are refused
    ".*when using `ckpt_path`, callbacks used to create the checkpoint",  # evaluation needs none
    ".*SWA is currently only supported every epoch",  # it replaces the learning rate schedule
    ".*The dirpath has changed from",  # a resumed run may have been moved
)


def prepare_process() -> None:
    """Apply the settings that every command shares; call it once, before any work."""
    import torch
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    escape_unencodable_output()
    quiet_deepspeed()
    hide_artifact_bars()
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # TF32
    else:
        # Importing lightning enables an NVML check that fails anew in every optimizer step.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
        keep_freed_memory()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The launcher logs which process died before it terminates the others.
    launcher = "lightning.fabric.strategies.launchers.subprocess_script"
    logging.getLogger(launcher).setLevel(logging.INFO)
    if "RANK" not in os.environ and (node := int(os.environ.get("NODE_RANK", 0))):
        # On further nodes Lightning assumes rank 0 until the process group exists, and rank 0
        # makes a run folder.
        rank_zero_only.rank = node  # type: ignore[attr-defined]
    if "SLURM_JOB_ID" not in os.environ:  # SLURM is installed, but this is not a job
        warnings.filterwarnings(
            "ignore", message=".*The `srun` command is available on your system"
        )
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    shorten_own_warnings()


def shorten_own_warnings() -> None:
    """Print the warnings of this project, which address the user, without file and source line."""
    default = warnings.formatwarning
    if default.__module__ == __name__:  # a second run in the same process
        return

    def format_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        path = Path(filename)
        if path.is_relative_to(PROJECT) and "site-packages" not in path.parts:
            return f"Warning: {message}\n"
        return default(message, category, filename, lineno, line)

    warnings.formatwarning = format_warning


def quiet_deepspeed() -> None:
    """Keep DeepSpeed, which transformers imports, from printing that it found no GPU."""
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def escape_unencodable_output() -> None:
    """Replace characters that the console cannot encode by `?` instead of raising an error.

    For consoles that are not UTF-8: `PYTHONIOENCODING=ascii`, code page 1252. Python's stderr
    escapes such characters already.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def hide_artifact_bars() -> None:
    """Turn off MLflow's progress bars, one for each file of a model."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def keep_freed_memory() -> None:
    """Let glibc reuse the memory of large tensors instead of returning it after each step.

    Memory requested anew costs a page fault per 4 KB in every step. The settings are
    M_MMAP_THRESHOLD (-3), at most 32 MB, and M_TRIM_THRESHOLD (-1), see mallopt(3).
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another libc
        return
    mallopt(-3, 32 * 2**20)
    mallopt(-1, 2**31 - 1)
