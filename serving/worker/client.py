"""The server's side of a worker process: start, requests, cancellation, restart."""

import asyncio
import itertools
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from serving.errors import Problem, StartError, internal_error, unavailable
from serving.metrics import Metrics
from serving.settings import Settings
from serving.worker.messages import Decoder, Message, pack

log = logging.getLogger("serving")
RESTART_SECONDS = (0.1, 10.0)  # first and longest pause before a restart
SETTINGS = (
    *("runtime", "threads", "batch_tokens", "batch_size", "slots", "max_pixels"),
    "guard_threshold",
)


def start_process(connection: socket.socket) -> subprocess.Popen[bytes]:
    """Start a worker process with one end of a connection."""
    return subprocess.Popen(
        [sys.executable, "-m", "serving.worker", str(connection.fileno())],
        pass_fds=[connection.fileno()],
        stdin=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


class Pending:
    """A request that a worker has not answered yet."""

    def __init__(self, number: int, message: bytes, size: int) -> None:
        self.number = number
        self.message = message
        self.size = size
        self.started = False  # a batch with a sample of it was begun
        self.events: asyncio.Queue[Message] = asyncio.Queue()


class Connection(asyncio.Protocol):
    """The connection to a worker process.

    Args:
        receive: Called with each message.
    """

    def __init__(self, receive: Callable[[Message], None]) -> None:
        self.lost = asyncio.get_running_loop().create_future()
        self._receive = receive
        self._messages = Decoder()

    def data_received(self, data: bytes) -> None:
        for message, _ in self._messages.feed(data):
            self._receive(message)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(None)


class WorkerClient:
    """A worker process; it is started again when it dies.

    Args:
        settings: Settings of the server.
        device: Device of the worker, such as cpu or cuda:1.
        metrics: Metrics of the server.
    """

    def __init__(self, settings: Settings, device: str, metrics: Metrics) -> None:
        self.settings = settings
        self.device = device
        self.metrics = metrics
        self.sources: dict[str, str] = {}  # version to source, loaded again after a restart
        self.descriptions: dict[str, dict[str, Any]] = {}
        self.ready = asyncio.Event()
        self.samples = 0  # of all pending requests
        self._pending: dict[int, Pending] = {}
        self._numbers = itertools.count()
        self._loading: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def process_id(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self, sources: dict[str, str]) -> None:
        """Start the process and load models.

        Args:
            sources: Version of each model to its source.

        Raises:
            StartError: If a model cannot be served.
        """
        self.sources = dict(sources)
        connection = await self._spawn()
        self._task = asyncio.create_task(self._supervise(connection))
        await self._load_all()

    async def _spawn(self) -> Connection:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = start_process(theirs)
        self._transport, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self._receive), sock=ours
        )
        chosen = {name: getattr(self.settings, name) for name in SETTINGS}
        more = {
            "device": self.device,
            "data_dir": str(self.settings.data_dir),
            "answering": self.settings.answering(),
        }
        self._send(pack(chosen | more))
        return connection

    async def _load_all(self) -> None:
        for version, source in list(self.sources.items()):
            self.descriptions[version] = await self.load(version, source)
        self.ready.set()
        for pending in self._pending.values():  # no batch with them was begun
            self._send(pending.message)

    async def load(self, version: str, source: str) -> dict[str, Any]:
        """Load a model and return its description.

        Raises:
            StartError: If it cannot be served.
        """
        self._loading[version] = asyncio.get_running_loop().create_future()
        self._send(pack({"load": source, "version": version}))
        try:
            description = await self._loading[version]
        finally:
            del self._loading[version]
        self.sources[version] = source
        self.descriptions[version] = description
        return description

    def unload(self, version: str) -> None:
        """Free the memory of a model."""
        self.sources.pop(version, None)
        self.descriptions.pop(version, None)
        self._send(pack({"unload": version}))

    async def close(self) -> None:
        """End the process; pending requests fail."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()
        if self._process is not None:
            try:
                await asyncio.to_thread(self._process.wait, 5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                await asyncio.to_thread(self._process.wait)
        if self._task is not None:
            self._task.cancel()

    def submit(
        self,
        version: str,
        operation: str,
        inputs: list[Any],
        options: dict[str, Any],
        files: list[bytes],
    ) -> Pending:
        """Send a request, now or as soon as the process is ready.

        Returns:
            The request, whose last event has `results` or `error`; then, or to abandon it, the
            caller must `forget` it.
        """
        number = next(self._numbers)
        message = {"id": number, "model": version, "operation": operation}
        packed = pack(message | {"inputs": inputs, "options": options}, files)
        pending = self._pending[number] = Pending(number, packed, len(inputs))
        self.samples += pending.size
        if self.ready.is_set():
            self._send(packed)
        return pending

    def forget(self, pending: Pending) -> None:
        """Release a request; one that is not answered yet is cancelled."""
        self.samples -= pending.size
        if self._pending.pop(pending.number, None) is not None:
            self._send(pack({"cancel": pending.number}))

    def _send(self, message: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(message)

    async def _supervise(self, connection: Connection) -> None:
        """Pass on messages; start the process again whenever it has died."""
        pause, longest = RESTART_SECONDS
        while True:
            started = time.monotonic()
            await connection.lost
            if self._closing:
                return
            self._fail_pending()
            pause = RESTART_SECONDS[0] if time.monotonic() - started > longest else pause
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
            connection = await self._spawn()
            loading = asyncio.create_task(self._load_all())
            loading.add_done_callback(lambda task: task.cancelled() or task.exception())

    def _receive(self, message: Message) -> None:
        if "started" in message:
            if "batch" in message:
                self.metrics.batch_size.observe(message["batch"])
            else:
                self.metrics.tokens.inc(message["generating"])
            for number in message["started"]:
                if number in self._pending:
                    self._pending[number].started = True
        elif "loaded" in message:
            future = self._loading.get(message["loaded"])
            if future is not None and not future.done():
                if "error" in message:
                    future.set_exception(StartError(message["error"]))
                else:
                    future.set_result(message["description"])
        elif message["id"] in self._pending:
            pending = self._pending[message["id"]]
            if "text" not in message:
                del self._pending[message["id"]]
            pending.events.put_nowait(message)

    def _fail_pending(self) -> None:
        """Fail the requests that the process was working on; the others are sent again."""
        self.ready.clear()
        self.metrics.restarts.inc()
        if self._process is not None:
            self._process.wait()
        for number, pending in list(self._pending.items()):
            if pending.started:
                del self._pending[number]
                pending.events.put_nowait({"error": "unavailable", "detail": ""})
        for future in self._loading.values():
            if not future.done():
                future.set_exception(StartError("the worker process died while it loaded a model"))


PROBLEMS: dict[str, Callable[[str], Problem]] = {
    "invalid": lambda detail: Problem(422, detail, "invalid"),
    "unavailable": lambda _: unavailable(),
    "not_finite": lambda _: Problem(
        500, "The model returned values that are not finite for this input.", "not_finite"
    ),
}


def problem_of(message: Message) -> Problem:
    """Return the problem that a worker reports."""
    kind = PROBLEMS.get(message["error"])
    if kind is None:
        log.error("a worker failed to answer a request: %s", message["detail"])
        return internal_error()
    return kind(message["detail"])
