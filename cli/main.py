"""Run a command line of train.py from Python."""

import sys
from pathlib import Path

from cli.help import help_text
from engine.process import escape_unencodable_output


def main(args: list[str] | None = None) -> Path | None:
    """Run a command line, as in `main(["fit", "--config", "configs/digits/mlp.yaml"])`.

    Args:
        args: Arguments; those of the process by default.

    Returns:
        The run folder, on rank zero.

    Raises:
        SystemExit: With code 2 after a user error, whose message is printed to stderr; 74 when a
            disk is full, 75 when a signal stopped training, 76 when another process died (continue
            each with `--resume`); 0 after a request for help.
    """
    escape_unencodable_output()
    words = [str(word) for word in (sys.argv[1:] if args is None else args)]
    text = help_text(words)
    if text is not None:
        sys.stdout.write(f"{text}\n")
        sys.exit(0)
    # Importing Lightning takes seconds, which help does not need.
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    from cli.command_line import CLI
    from engine.errors import exit_on_user_error
    from engine.guards.full_disk import DiskFull
    from engine.guards.preemption import Preempted
    from engine.guards.rank_failure import RankFailure
    from engine.process import prepare_process

    prepare_process()
    try:
        with exit_on_user_error("train.py"):
            return CLI.from_args(words).run_folder
    except (Preempted, RankFailure, DiskFull) as stop:
        if getattr(rank_zero_only, "rank", 0) == 0 or not isinstance(stop, Preempted):
            sys.stderr.write(f"train.py: {stop}\n")
        sys.exit(stop.exit_code)
