"""Run a command line of train.py from Python."""

import sys
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from cli.command_line import CLI
from engine.errors import exit_on_user_error
from engine.guards.full_disk import DiskFull
from engine.guards.preemption import Preempted
from engine.guards.rank_failure import RankFailure
from engine.process import prepare_process


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

    prepare_process()
    try:
        with exit_on_user_error("train.py"):
            return CLI.from_args(args).run_folder
    except (Preempted, RankFailure, DiskFull) as stop:
        if getattr(rank_zero_only, "rank", 0) == 0 or not isinstance(stop, Preempted):
            sys.stderr.write(f"train.py: {stop}\n")
        sys.exit(stop.exit_code)
