"""A process that dies ends all processes of the run, at once and with an error that names it.

Alone, the others would wait for it: in a collective of NCCL for 10 minutes, before the first one
for 30. So every process holds a connection to that of rank 0. The kernel closes it, whatever ends a
process, and keep-alive notices a machine that is gone; nobody sends anything meanwhile, and a slow
process is not a dead one.
"""

import atexit
import json
import os
import secrets
import socket
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import lightning as L
import torch.distributed
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import ParallelStrategy, Strategy
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn

from engine.guards.preemption import Preempted

EXIT_CODE = 76  # "the other side went wrong" of sysexits.h
GRACE = 15.0  # seconds in which a process may end by itself where all meet the same error


class Lost(Exception):
    """Another process of the run never came."""

    exit_code = EXIT_CODE


class Peers(L.Callback):
    """End this process when another one of the run has died, with exit code 76 and its name."""

    def __init__(self) -> None:
        self._others: list[socket.socket] = []
        self._lock = threading.Lock()
        self._over = False  # this process has ended, in order or by an error that it has told
        self._begun = False

    def __reduce__(self) -> tuple[type["Peers"], tuple[()]]:
        return Peers, ()  # a copy, which averages of weights make of all, watches nobody

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._begun or trainer.world_size == 1:
            return
        self._begun = True
        self._rank = trainer.global_rank
        door = self._listen() if self._rank == 0 else None
        port = door.getsockname()[1] if door else 0
        port, token = trainer.strategy.broadcast((port, secrets.token_hex(8)))
        if door:
            work = partial(self._let_in, door, token)
            threading.Thread(target=work, daemon=True, name="peers").start()
        elif port:
            self._call(port, token)
        atexit.register(self._goodbye)

    def _listen(self) -> socket.socket | None:
        try:
            return socket.create_server((os.environ["MASTER_ADDR"], 0), backlog=512)
        except OSError as error:
            rank_zero_warn(f"processes can't watch each other at MASTER_ADDR: {error}")
            return None

    def _call(self, port: int, token: str) -> None:
        try:
            hub = socket.create_connection((os.environ["MASTER_ADDR"], port), timeout=10)
        except OSError as error:
            sys.stderr.write(f"rank {self._rank} can't watch rank 0, nor be watched: {error}\n")
            return
        hub.settimeout(None)
        keep_alive(hub)
        self._others.append(hub)
        self._send(hub, token=token, rank=self._rank, who=identity())
        work = partial(self._watch, hub, 0, "")
        threading.Thread(target=work, daemon=True, name="peers").start()

    def _let_in(self, door: socket.socket, token: str) -> None:
        while True:
            guest, _ = door.accept()
            work = partial(self._welcome, guest, token)
            threading.Thread(target=work, daemon=True, name="peers").start()

    def _welcome(self, guest: socket.socket, token: str) -> None:
        first: dict[str, Any] = next(messages(guest), {})
        if first.get("token") != token:
            guest.close()  # not one of ours
            return
        keep_alive(guest)
        self._others.append(guest)
        self._send(guest, who=identity())
        self._watch(guest, first["rank"], first["who"])

    def _watch(self, other: socket.socket, rank: int, who: str) -> None:
        """Read what another process tells, until it ends."""
        for told in messages(other):
            who = told.get("who", who)
            if "bye" in told:
                return
            if "dead" in told:
                self._end(**told["dead"])
        self._end(rank, who, "")

    def _end(self, rank: int, who: str, why: str) -> None:
        """Tell the others, then end: at once, or where there was an error a little later."""
        if self._over:
            return
        if self._rank == 0:
            for other in list(self._others):
                self._send(other, dead={"rank": rank, "who": who, "why": why})
        if why:
            time.sleep(GRACE)
            if self._over:  # this one has met the same error, told it, and goes its own way
                return
        if self._rank == 0 or rank == 0:
            how = f"ended by {why}" if why else "has died (killed, out of memory, or its machine)"
            sys.stderr.write(
                f"train.py: error: rank {rank} ({who}) {how}, so all processes end. `--resume` "
                "goes on from the last checkpoint.\n"
            )
            sys.stderr.flush()
        os._exit(EXIT_CODE)  # the main thread may be waiting for ever

    def _send(self, other: socket.socket, **message: Any) -> None:
        with self._lock, suppress(OSError):  # it has ended, which its own watch tells
            other.sendall(json.dumps(message).encode() + b"\n")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        if not self._begun or isinstance(exception, Preempted | KeyboardInterrupt):
            self._goodbye()
            return
        if isinstance(exception, RuntimeError):
            time.sleep(2)  # if a collective failed since another process has died, that one is told
        self._over = True
        lines = str(exception).splitlines() or [""]
        why = f"{type(exception).__name__}: {lines[0][:300]}"
        for other in list(self._others):
            self._send(other, dead={"rank": self._rank, "who": identity(), "why": why})

    def _goodbye(self) -> None:
        if not self._over:
            self._over = True
            for other in list(self._others):
                self._send(other, bye=True)


def identity() -> str:
    """Where this process runs."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def keep_alive(connection: socket.socket) -> None:
    """Let the kernel ask a silent machine after 10 seconds, and give up after 30."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def messages(connection: socket.socket) -> Any:
    """Each line that comes, as JSON, until the connection ends, in order or not."""
    try:
        with connection.makefile("rb") as lines:
            for line in lines:
                try:
                    yield json.loads(line)
                except ValueError:
                    return
    except OSError:
        return


def meet_first(strategy: Strategy) -> None:
    """Have `strategy` call the roll before its processes join, so that who is missing is named."""
    if isinstance(strategy, ParallelStrategy):
        strategy.setup_environment = partial(_meet, strategy)  # type: ignore[method-assign]


def _meet(strategy: Any) -> None:
    cluster = strategy.cluster_environment
    world = strategy.num_nodes * strategy.num_processes
    if world > 1 and not torch.distributed.is_initialized():
        # The processes that Lightning starts on one machine it watches, too: they may be slow.
        watched = isinstance(cluster, LightningEnvironment) and strategy.num_nodes == 1
        limit = float(os.environ.get("RENDEZVOUS_SECONDS") or (600 if watched else 60))
        os.environ["MASTER_ADDR"] = cluster.main_address
        os.environ["MASTER_PORT"] = str(cluster.main_port)
        rank = cluster.node_rank() * strategy.num_processes + strategy.local_rank
        rank_zero_only.rank = rank  # type: ignore[attr-defined]
        store = call_the_roll(rank, world, limit)  # noqa: F841  # kept until all have joined
        atexit.register(_leave)
    type(strategy).setup_environment(strategy)


def _leave() -> None:
    """Out of the process group before Python ends, as Lightning does for NCCL alone.

    Else the threads of gloo are still there when their memory goes, and now and then a run that has
    done all its work ends by SIGABRT ("terminate called without an active exception").
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def call_the_roll(rank: int, world: int, limit: float) -> Any:
    """Wait until all processes are there.

    Args:
        rank: Of this process.
        world: Number of processes.
        limit: Seconds to wait.

    Returns:
        The store that they met at; on rank 0 it lives as long as this.

    Raises:
        Lost: Naming those that did not come.
    """
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    advice = (
        "Look for its own error, and whether all nodes were started with the same MASTER_ADDR and "
        "MASTER_PORT; where they start slowly, set RENDEZVOUS_SECONDS."
    )
    try:
        store = torch.distributed.TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
            timeout=timedelta(seconds=limit),
            wait_for_workers=False,
            multi_tenant=True,  # the processes then join in the same one
        )
        store.set_timeout(timedelta(seconds=limit + 10))  # rank 0 is the first whose time is over
        attempt = store.add(f"here/{rank}", 1)  # torchrun starts anew with the same store
        if rank == 0:
            store.set(f"missing/{attempt}", _missing(store, attempt, world, limit))
        missing = store.get(f"missing/{attempt}").decode()
    except torch.distributed.DistError as error:
        if rank == 0:
            raise
        raise Lost(f"rank 0 was not at {place} within {limit:g} seconds. {advice}") from error
    if missing:
        if rank == 0:
            time.sleep(2)  # the store is in this process: let the others read it
        raise Lost(f"{missing} did not come to {place} within {limit:g} seconds. {advice}")
    return store


def _missing(store: Any, attempt: int, world: int, limit: float) -> str:
    """Which ranks are not there when the time is over, in words."""
    end = time.monotonic() + limit
    missing = list(range(1, world))
    while missing:
        missing = [rank for rank in missing if store.add(f"here/{rank}", 0) < attempt]
        if missing and time.monotonic() > end:
            names = ", ".join(map(str, missing))
            return f"rank{'s' if len(missing) > 1 else ''} {names} of {world}"
        time.sleep(0.05)
    return ""
