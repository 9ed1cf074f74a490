"""Failures of other processes of a run: one that died, or one that never joined.

Launchers watch their processes (docs/reliability.md); gloo and NCCL raise in a collective whose
other side is gone. This module limits the rendezvous and turns those errors into one message.
"""

import atexit
import os
import signal
import time
from datetime import timedelta
from functools import partial
from typing import Any

import lightning as L
import torch.distributed
from lightning.pytorch.strategies import ParallelStrategy, Strategy

from engine.lightning_internals import set_collective_timeout, swap_strategy_timeout

EXIT_CODE = 76  # EX_PROTOCOL of sysexits.h
RENDEZVOUS_SECONDS = 120.0
# The backends raise RuntimeError; only the text says that the other side of a connection is gone.
BROKEN_CONNECTION = ("gloo/transport", "Connection closed by peer", "ncclRemoteError")


class RankFailure(Exception):
    """Another process of the run died or never joined."""

    exit_code = EXIT_CODE


def limit_rendezvous(strategy: Strategy) -> None:
    """Limit the time in which all processes must join to RENDEZVOUS_SECONDS (environment or 120).

    The strategy's own `timeout` applies to the collectives after that.
    """
    if isinstance(strategy, ParallelStrategy):
        # No closure: ddp_spawn pickles the strategy.
        strategy.setup_environment = partial(_setup_environment, strategy)  # type: ignore[method-assign]


def _setup_environment(strategy: ParallelStrategy) -> None:
    if torch.distributed.is_initialized():
        type(strategy).setup_environment(strategy)
        return
    seconds = float(os.environ.get("RENDEZVOUS_SECONDS") or RENDEZVOUS_SECONDS)
    timeout = swap_strategy_timeout(strategy, timedelta(seconds=seconds))
    try:
        type(strategy).setup_environment(strategy)
    except (torch.distributed.DistError, RuntimeError) as error:
        if torch.distributed.is_initialized():
            raise
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RankFailure(
            f"not all processes joined at {address} within {seconds:g} seconds "
            f"({_first_line(error)}). Check that every node was started, with the same MASTER_ADDR "
            "and MASTER_PORT; for slow starts set RENDEZVOUS_SECONDS."
        ) from error
    finally:
        swap_strategy_timeout(strategy, timeout)
    if torch.distributed.is_initialized():
        set_collective_timeout(timeout)
        atexit.register(_destroy_process_group)


def _destroy_process_group() -> None:
    """Stop gloo's threads before Python exits; otherwise a finished run may end with SIGABRT."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def find_rank_failure(error: BaseException | None, trainer: L.Trainer | None) -> RankFailure | None:
    """Return the failure of another rank that caused an error, if there is one.

    Args:
        error: The error that ended this process.
        trainer: Its launcher may know which process died.
    """
    while error is not None:
        if isinstance(error, RankFailure):
            return error
        if isinstance(error, torch.distributed.DistNetworkError) or (
            isinstance(error, RuntimeError)
            and any(text in str(error) for text in BROKEN_CONNECTION)
        ):
            who = dead_process(trainer) or "another process of the run died"
            return RankFailure(
                f"{who} ({_first_line(error)}). Look for its own error above; `--resume` continues "
                "from the last checkpoint."
            )
        error = error.__cause__ or error.__context__
    return None


def dead_process(trainer: L.Trainer | None, wait: float = 2.0) -> str | None:
    """Return the rank and exit of a dead process that Lightning's launcher started on this node."""
    launcher: Any = trainer.strategy.launcher if trainer else None
    processes = getattr(launcher, "procs", [])
    end = time.monotonic() + wait
    while processes:
        for local_rank, process in enumerate(processes, start=1):
            code = process.poll() if hasattr(process, "poll") else None
            if code:
                how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                return f"local rank {local_rank} (process {process.pid}) died of {how}"
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].strip().rstrip(".")
