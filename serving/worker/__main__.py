"""The worker process, `python -m serving.worker DESCRIPTOR`; client.py starts it."""

import base64
import contextlib
import os
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from engine.errors import UserError
from serving.worker.batching import SampleQueue, run_batch
from serving.worker.loading import open_source
from serving.worker.messages import Decoder, Message, pack
from serving.worker.requests import Model, Request, Sample, decode_image, prepare

THREADS = 2  # that prepare requests beside the network
SMALL = 2**15  # bytes of inputs that are prepared faster than they are passed on
RECEIVE = 2**20  # bytes
SWITCH_SECONDS = 0.001  # after which a thread that computes in Python lets another one run


class Worker:
    """Loads models and answers requests until the server closes the connection.

    One thread receives requests, tokenizes their inputs and runs the networks: two would wait for
    the interpreter lock of each other. Further threads prepare large requests and those to generate
    texts, and load new versions of models.

    Args:
        connection: Connection to the server; its first message holds the settings.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._messages = Decoder()
        self.settings = self._receive_settings()
        self.device = self._prepare_torch() if self.settings["runtime"] == "torch" else None
        self.models: dict[str, Model] = {}
        self.requests: dict[int, Request] = {}  # not answered yet
        self.queue = SampleQueue(self.settings["batch_tokens"], self.settings["batch_size"])
        self.generator: Any = None  # from the first request to generate texts on: it imports torch
        self._outbox: deque[bytes] = deque()
        self._threads = ThreadPoolExecutor(THREADS)
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        for source in (connection, self._woken):
            self._selector.register(source, selectors.EVENT_READ)

    def _receive_settings(self) -> Message:
        while received := self.connection.recv(RECEIVE):
            for message, _ in self._messages.feed(received):
                return message
        raise ConnectionError("the server closed the connection")

    def _prepare_torch(self) -> Any:
        """Return the device, or None where torch is not installed."""
        try:
            from serving.worker.trained import prepare_torch
        except ImportError:  # `open_task` reports which models need it
            return None
        return prepare_torch(self.settings["device"], self.settings["threads"])

    def run(self) -> None:
        """Answer requests until the connection ends."""
        self._handle_all(b"")  # what came with the settings
        while self._receive():
            if samples := self.queue.take():
                started = sorted({sample.request.number for sample in samples})
                self._announce({"started": started, "batch": len(samples)})
                run_batch(samples)
            if self.generator:
                self.generator.step(self._announce)
            self._flush()

    def send(self, message: Message) -> None:
        """Queue a message to the server, from any thread."""
        self._outbox.append(pack(message))
        self._interrupt()

    def _announce(self, message: Message) -> None:
        """Send what is about to be computed, which may end the process."""
        self.send(message)
        self._flush()

    def _flush(self) -> None:
        if waiting := [self._outbox.popleft() for _ in range(len(self._outbox))]:
            with contextlib.suppress(OSError):  # the server has ended; so will this process
                self.connection.sendall(b"".join(waiting))

    def _interrupt(self) -> None:
        """End the waiting of the main thread, if this is another one."""
        if threading.current_thread() is not threading.main_thread():
            self._wake.send(b"\0")

    def _receive(self) -> bool:
        """Handle the messages that have arrived; wait for one if there is nothing to compute.

        Returns:
            Whether the connection is open.
        """
        busy = self.queue or self.generator
        for key, _ in self._selector.select(0 if busy else None):
            if key.fileobj is self._woken:
                self._woken.recv(RECEIVE)
            elif received := self.connection.recv(RECEIVE):
                self._handle_all(received)
            else:
                return False
        return True

    def _handle_all(self, received: bytes) -> None:
        for message, files in self._messages.feed(received):
            try:
                self._handle(message, files)
            except Exception:  # a bug in one request must not end the others
                traceback.print_exc()
                self.send({"id": message.get("id"), "error": "internal", "detail": ""})

    def _handle(self, message: Message, files: list[bytes]) -> None:
        if "load" in message:
            threading.Thread(target=self._load, args=(message,), daemon=True).start()
        elif "unload" in message:
            self.models.pop(message["unload"], None)
        elif "cancel" in message:
            request = self.requests.pop(message["cancel"], None)
            if request is not None:
                request.closed = True
        else:
            self._accept(message, files)

    def _accept(self, message: Message, files: list[bytes]) -> None:
        number = message["id"]
        model = self._find_model(message["model"])
        size = len(message["inputs"])
        request = Request(
            number, model, message["operation"], message["options"], size, self._reply
        )
        self.requests[number] = request
        if request.operation == "generate" and self.generator is None:
            from serving.worker.generating import Generator

            self.generator = Generator(self.settings["slots"])
        size = len(str(message["inputs"])) + sum(map(len, files))
        if request.operation == "generate" or size > SMALL:
            self._threads.submit(self._enqueue, request, message["inputs"], files)
        else:
            self._enqueue(request, message["inputs"], files)

    def _find_model(self, version: str) -> Model:
        """Return a model, or its new version if it was replaced while the request was sent."""
        if version in self.models:
            return self.models[version]
        name = version.rpartition("@")[0]
        return [m for v, m in self.models.items() if v.rpartition("@")[0] == name][-1]

    def _enqueue(self, request: Request, inputs: list[Any], files: list[bytes]) -> None:
        generates = request.operation == "generate"
        samples: list[Sample] = []
        try:
            if generates:
                from serving.worker.generating import prepare_texts

                samples = prepare_texts(request, inputs)
            else:
                samples = prepare(request, inputs, files, self.settings["max_pixels"])
        except UserError as error:
            request.fail("invalid", str(error))
        except Exception as error:
            request.fail("internal", repr(error))
        (self.generator if generates else self.queue).put(samples)
        self._interrupt()

    def _reply(self, message: Message) -> None:
        if "results" in message or "error" in message:
            self.requests.pop(message["id"], None)
        self.send(message)

    def _load(self, message: Message) -> None:
        """Load a model beside the others, and run each of its operations once."""
        source, version = message["load"], message["version"]
        try:
            task, description = open_source(source, self.settings)
            if self.device is not None and hasattr(task, "to"):
                task.to(self.device)
            model = Model(version, task, description)
            warm_up(model)
        except (UserError, OSError, ValueError) as error:
            self.send({"loaded": version, "error": str(error)})
            return
        except Exception as error:
            traceback.print_exc()
            self.send({"loaded": version, "error": f"{source} cannot be served: {error!r}"})
            return
        self.models[version] = model
        self.send({"loaded": version, "description": description})


def warm_up(model: Model) -> None:
    """Run each operation of a model on its example: the first calls are slower.

    Raises:
        UserError: If an example is refused.
    """
    for operation, example in model.description["examples"].items():
        inputs: list[Any] = example["inputs"]
        if model.description["input"] == "image":
            file = base64.b64decode(inputs[0]["image"])
            inputs = [decode_image(file, 2**31, 0)]
        options = {"max_new_tokens": 2} if operation == "generate" else {}
        if inputs:
            with contextlib.suppress(UserError):  # the vocabulary may lack characters of the text
                getattr(model.task, operation)(inputs, **options)


def main(connection: socket.socket) -> None:
    """Answer the requests of a server until it closes the connection, then end the process."""
    for name in (signal.SIGINT, signal.SIGTERM):  # the server drains, then closes the connection
        signal.signal(name, signal.SIG_IGN)
    sys.setswitchinterval(SWITCH_SECONDS)
    Worker(connection).run()
    sys.stderr.flush()
    os._exit(0)  # threads that still load or decode are abandoned


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
