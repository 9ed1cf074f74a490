"""Run the application: the port, signals, logs, and the order in which it ends."""

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from collections.abc import Iterator
from types import FrameType

import uvicorn

from serving.application import create_app
from serving.errors import StartError
from serving.metrics import Metrics
from serving.models import Models
from serving.settings import Settings

BACKLOG = 2048


class Server(uvicorn.Server):
    """uvicorn, which on SIGTERM loses readiness, finishes its requests and then ends."""

    def __init__(self, config: uvicorn.Config, models: Models, address: str) -> None:
        super().__init__(config)
        self.models = models
        self.address = address
        self._drain: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            print(f"Serving {', '.join(self.models.versions)} at {self.address}", flush=True)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, self.handle_exit, name, None)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._drain is not None:
            self.force_exit = True
            return
        self.models.draining = True
        self._drain = asyncio.get_running_loop().create_task(self._exit())

    async def _exit(self) -> None:
        await asyncio.sleep(self.models.settings.drain_seconds)
        self.should_exit = True


def run(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        StartError: If a model cannot be served, the port is in use, or the keys are not valid.
    """
    _raise_file_limit()
    _configure_logs()
    models = Models(settings, Metrics())
    app = create_app(settings, models)
    listener = _listen(settings.host, settings.port)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.drain_timeout),
        lifespan="off",
    )
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(Server(config, models, address), listener))


async def _serve(server: Server, listener: socket.socket) -> None:
    try:
        await server.models.start()
        await server.serve(sockets=[listener])
    finally:
        await server.models.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Connections inherit the protocol, without which event loops do not set TCP_NODELAY: answers
    # would then wait for a delayed acknowledgment, 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise StartError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another port by --port, or "
            "--port 0 for a free one"
        ) from error
    return listener


def _raise_file_limit() -> None:
    """Allow as many open connections as the system does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _configure_logs() -> None:
    logging.raiseExceptions = False  # a full disk does not fail requests
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("serving")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
