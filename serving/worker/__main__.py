"""The worker process, `python -m serving.worker DESCRIPTOR`; client.py starts it."""

import base64
import contextlib
import os
import signal
import socket
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from engine.errors import UserError
from engine.process import prepare_process
from serving.worker.batching import SampleQueue, run_batch
from serving.worker.generating import Generator, prepare_texts
from serving.worker.loading import best_device, describe, open_task
from serving.worker.messages import Message, pack, receive
from serving.worker.requests import Model, Request, Sample, decode_image, prepare

DECODERS = 2  # threads that decode large images
SMALL_FILES = 2**15  # bytes of images that are decoded faster than they are passed on
PREPARATION_SECONDS = 0.003  # that a batch waits for samples that have arrived already
SWITCH_SECONDS = 0.001  # after which a thread that computes in Python lets another one run


class Worker:
    """Loads models and answers requests until the server closes the connection.

    The main thread runs the networks. A second thread receives requests and tokenizes them, and
    further threads decode images and load new versions of models.

    Args:
        connection: Connection to the server; its first message holds the settings.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        first = receive(connection)
        assert first is not None, "the server closed the connection"
        self.settings: Message = first[0]
        if self.settings["threads"]:
            torch.set_num_threads(self.settings["threads"])
        device = self.settings["device"]
        self.device = torch.device(best_device() if device == "auto" else device)
        self.models: dict[str, Model] = {}
        self.requests: dict[int, Request] = {}  # not answered yet
        self.queue = SampleQueue(self.settings["batch_tokens"], self.settings["batch_size"])
        self.generator = Generator(self.settings["slots"])
        self.wake = threading.Condition()
        self.closed = False
        self._preparing = 0  # requests that were received and are not in a queue yet
        self._send_lock = threading.Lock()
        self._decoders = ThreadPoolExecutor(DECODERS)

    def send(self, message: Message) -> None:
        # The connection closes when the server ends; the worker then ends as well.
        with self._send_lock, contextlib.suppress(OSError):
            self.connection.sendall(pack(message))

    def run(self) -> None:
        """Answer requests until the connection ends."""
        threading.Thread(target=self._receive, daemon=True).start()
        while True:
            with self.wake:
                while not (self.closed or len(self.queue) or len(self.generator)):
                    self.wake.wait()
                self.wake.wait_for(lambda: not self._preparing, PREPARATION_SECONDS)
            if self.closed:
                return
            if samples := self.queue.take():
                started = sorted({sample.request.number for sample in samples})
                self.send({"started": started, "batch": len(samples)})
                run_batch(samples)
            if len(self.generator):
                self.generator.step(self.send)

    def _receive(self) -> None:
        while (received := receive(self.connection)) is not None:
            message, files = received
            try:
                self._handle(message, files)
            except Exception:  # a bug in one request must not end the others
                traceback.print_exc()
                self.send({"id": message.get("id"), "error": "internal", "detail": ""})
        with self.wake:
            self.closed = True
            self.wake.notify()

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
        with self.wake:
            self._preparing += 1
        if sum(map(len, files)) > SMALL_FILES:
            self._decoders.submit(self._enqueue, request, message["inputs"], files)
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
                samples = prepare_texts(request, inputs)
            else:
                samples = prepare(request, inputs, files, self.settings["max_pixels"])
        except UserError as error:
            request.fail("invalid", str(error))
        except Exception as error:
            request.fail("internal", repr(error))
        with self.wake:
            (self.generator if generates else self.queue).put(samples)
            self._preparing -= 1
            self.wake.notify()

    def _reply(self, message: Message) -> None:
        if "results" in message or "error" in message:
            self.requests.pop(message["id"], None)
        self.send(message)

    def _load(self, message: Message) -> None:
        """Load a model beside the others, and run each of its operations once."""
        source, version = message["load"], message["version"]
        runtime = self.settings["runtime"]
        try:
            task = open_task(source, runtime, Path(self.settings["data_dir"])).to(self.device)
            description = describe(task, source, runtime)
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
    prepare_process()
    sys.setswitchinterval(SWITCH_SECONDS)
    Worker(connection).run()
    sys.stderr.flush()
    os._exit(0)  # threads that still load or decode are abandoned


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
