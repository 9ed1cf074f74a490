"""The served models by name, and requests to them."""

import asyncio
import itertools
import math
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, NamedTuple

from starlette.requests import Request

from serving.errors import Problem, StartError, refused
from serving.guarding import WRITING, input_texts, output_texts
from serving.metrics import Metrics
from serving.registry import PREFIX, Registry, name_in_registry
from serving.sampling import InputSamples
from serving.settings import Settings
from serving.worker.client import WorkerClient, problem_of
from serving.worker.messages import GUARD, INDEX, Message

UNWATCHED_SECONDS = 0.05  # of a request, before it is observed whether its client is connected
DOCUMENTS = "documents"  # name of the index
GUARD_VERSION = ":guard@1"  # no name of a model has a colon
QUICKSTART = "digits-cnn"  # the experiment of `make quickstart`


class Models:
    """The served models, on one worker process per device, and the index of documents.

    The index has a worker process of its own, in which a language model may write for seconds.

    Args:
        settings: Settings of the server.
        metrics: Metrics of the server.

    Raises:
        StartError: If there is nothing to serve, or two models have the same name.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.sources = named_sources(settings)
        self.versions = {name: f"{name}@1" for name in self.sources}  # of the current models
        self.workers_of = self._make_workers()
        self.workers = list(dict.fromkeys(w for ws in self.workers_of.values() for w in ws))
        self.registry = Registry(settings)
        self.samples = InputSamples(settings)
        self.draining = False
        self._counter = itertools.count(2)
        self._rate = 0.0  # samples per second of the last requests, for Retry-After
        metrics.queue_depth.set_function(lambda: self.depth)

    def _make_workers(self) -> dict[str, list[WorkerClient]]:
        """Return the workers of each name, and of the guard."""
        settings, devices = self.settings, self.settings.devices
        shared = [WorkerClient(settings, device, self.metrics) for device in devices]
        found = dict.fromkeys(self.sources, shared)
        if settings.rag is not None:
            # Questions are answered one by one: a batch would only delay the first of them.
            alone = settings.model_copy(update={"batch_size": 1})
            found[DOCUMENTS] = [WorkerClient(alone, devices[0], self.metrics)]
        if settings.guard is not None:
            found[GUARD_VERSION] = next(iter(found.values()))
        return found

    async def start(self) -> None:
        """Start the workers and load the models.

        Raises:
            StartError: If a model cannot be served.
        """
        sources = {name: await self.registry.fetch(source) for name, source in self.sources.items()}
        starts = []
        for worker in self.workers:
            names = [name for name in sources if worker in self.workers_of[name]]
            held = {self.versions[name]: sources[name] for name in names}
            if worker in self.workers_of.get(GUARD_VERSION, ()):
                held[GUARD_VERSION] = f"{GUARD}{self.settings.guard}"
            starts.append(worker.start(held))
        await asyncio.gather(*starts)
        self.registry.follow(self.sources, self.swap)

    async def close(self) -> None:
        self.registry.close()
        await asyncio.gather(*(worker.close() for worker in self.workers))

    @property
    def ready(self) -> bool:
        """Whether requests are answered without waiting for a worker to start."""
        served = self.workers_of.values()
        return not self.draining and all(any(w.ready.is_set() for w in ws) for ws in served)

    @property
    def depth(self) -> int:
        """Samples that were accepted and not answered yet."""
        return sum(worker.samples for worker in self.workers)

    def describe(self, name: str) -> dict[str, Any]:
        """Return the description of a model.

        Raises:
            Problem: If there is no such model.
        """
        found = self._description(name)
        limits = {
            limit: getattr(self.settings, limit)
            for limit in ("max_body", "max_items", "max_characters", "max_pixels", "max_new_tokens")
        }
        version = int(self.versions[name].rpartition("@")[2])
        return {"name": name, "version": version, **found, "limits": limits}

    def _description(self, name: str) -> dict[str, Any]:
        if name not in self.versions:
            raise Problem(404, f"There is no model named {name!r}; see GET /v1/models.", "unknown")
        version = self.versions[name]
        return next(
            worker.descriptions[version]
            for worker in self.workers_of[name]
            if version in worker.descriptions
        )

    def check(self, name: str, operation: str) -> None:
        """Check that a model exists and has an operation.

        Raises:
            Problem: 404.
        """
        served = self._description(name)["operations"]
        if operation not in served:
            raise Problem(
                404,
                f"The model {name!r} cannot {operation}; it can: {', '.join(served)}.",
                "unknown",
            )

    async def run(
        self,
        request: Request,
        name: str,
        operation: str,
        inputs: list[Any],
        options: dict[str, Any],
        files: list[bytes] | None = None,
    ) -> Message:
        """Return the last message about a request: `results`, and `tokens` of the inputs.

        Raises:
            Problem: If the request is not answered.
        """
        async for event in self.stream(request, name, operation, inputs, options, files):
            last = event
        return last

    async def stream(
        self,
        request: Request,
        name: str,
        operation: str,
        inputs: list[Any],
        options: dict[str, Any],
        files: list[bytes] | None = None,
    ) -> AsyncIterator[Message]:
        """Yield the messages of a worker about a request; the last one has `results`.

        The request is cancelled when its client goes away, and at its deadline.

        Args:
            request: The HTTP request, whose body was read.
            name: Name of the model.
            operation: Method of its task.
            inputs: Texts, pairs of texts, or `{"image": number of the file}`.
            options: Keyword arguments of the method.
            files: Image files.

        Raises:
            Problem: If the request is not answered.
        """
        self.check(name, operation)
        self._admit(len(inputs))
        started, version, files = time.monotonic(), self.versions[name], files or []
        limit = Limit.of(request, self.settings.deadline)
        guarded = self.settings.guard is not None and operation in WRITING
        if guarded:
            await self._judge(request, limit, "input", input_texts(inputs, options))
        work = (version, operation, inputs, options, files)
        event: Message = {}
        held: list[Message] = []  # until the guard has judged the text
        async with aclosing(self._call(request, limit, self.workers_of[name], *work)) as events:
            async for event in events:
                if guarded:
                    held.append(event)
                else:
                    yield event
        if guarded:
            await self._judge(request, limit, "output", output_texts(event["results"]))
            for one in held:
                yield one
        identity = request.scope["state"]["id"]
        self.samples.add(identity, version, operation, inputs, files, event["results"])
        self._rate += 0.1 * (len(inputs) / max(1e-3, time.monotonic() - started) - self._rate)

    async def _judge(self, request: Request, limit: "Limit", stage: str, texts: list[str]) -> None:
        """Raise a problem if the guard refuses one of the texts."""
        if not texts:
            return
        workers = self.workers_of[GUARD_VERSION]
        call = self._call(request, limit, workers, GUARD_VERSION, "judge", texts, {}, [])
        async with aclosing(call) as events:
            last = [event async for event in events][-1]
        threshold = next(w.descriptions[GUARD_VERSION]["threshold"] for w in workers)
        if max(last["results"]) >= threshold:
            self.metrics.refused.labels(stage).inc()
            raise refused(stage)

    async def _call(
        self,
        request: Request,
        limit: "Limit",
        workers: list[WorkerClient],
        version: str,
        operation: str,
        inputs: list[Any],
        options: dict[str, Any],
        files: list[bytes],
    ) -> AsyncGenerator[Message, None]:
        """Yield the messages of the worker with the shortest queue; it was admitted before."""
        worker = min(workers, key=lambda worker: worker.samples)
        pending = worker.submit(version, operation, inputs, options, files)
        loop, events = asyncio.get_running_loop(), pending.events
        # Events of the clock join those of the worker; asyncio.timeout would take longer.
        late = loop.call_at(limit.time, events.put_nowait, {"late": True})
        watch = loop.call_later(UNWATCHED_SECONDS, events.put_nowait, {"watch": True})
        gone: asyncio.Task[None] | None = None
        try:
            event: Message = {}
            while "results" not in event:
                event = await events.get()
                if "watch" in event:
                    gone = asyncio.create_task(_disconnected(request))
                    gone.add_done_callback(lambda _: events.put_nowait({"abandoned": True}))
                elif "late" in event:
                    raise _late(limit.seconds)
                elif "error" in event:
                    raise problem_of(event)
                elif "abandoned" in event:
                    raise _abandoned()
                else:
                    yield event
        finally:
            late.cancel()
            watch.cancel()
            if gone:
                gone.cancel()
            worker.forget(pending)

    def _admit(self, count: int) -> None:
        if self.depth + count > self.settings.queue_size:
            wait = math.ceil(self.depth / self._rate) if self._rate > 1e-3 else 1
            raise Problem(
                429,
                "Too many requests are waiting; repeat this one later.",
                "overloaded",
                retry_after=max(1, min(60, wait)),
            )

    async def swap(self, name: str, source: str) -> dict[str, Any]:
        """Load a model beside the current one and replace it once it answers requests.

        Raises:
            Problem: If it cannot be loaded; the current model stays.
        """
        if name == DOCUMENTS and self.settings.rag is not None:
            source = f"{INDEX}{source.removeprefix(INDEX)}"
        former = self.versions[name]
        version = f"{name}@{next(self._counter)}"
        try:
            path = await self.registry.fetch(source)
            await asyncio.gather(*(worker.load(version, path) for worker in self.workers_of[name]))
        except StartError as error:
            raise Problem(422, f"The model was not replaced: {error}", "invalid") from error
        self.versions[name] = version
        self.sources[name] = source
        for worker in self.workers_of[name]:
            worker.unload(former)
        return self.describe(name)


class Limit(NamedTuple):
    """When a request must be answered."""

    time: float  # of the event loop's clock
    seconds: float  # from the request on

    @classmethod
    def of(cls, request: Request, longest: float) -> "Limit":
        """Return the deadline, which a client may shorten by `Prefer: wait=N`."""
        found = re.search(r"\bwait=(\d+(?:\.\d+)?)", request.headers.get("prefer", ""))
        seconds = min(longest, float(found[1])) if found else longest
        return cls(asyncio.get_running_loop().time() + seconds, seconds)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _abandoned() -> Problem:
    return Problem(499, "The client closed the connection.", "abandoned")


def _late(seconds: float) -> Problem:
    return Problem(504, f"The answer would take longer than {seconds:g} seconds.", "deadline")


def named_sources(settings: Settings) -> dict[str, str]:
    """Return the sources of the models by name.

    Raises:
        StartError: If there is nothing to serve, or names are invalid or not unique.
    """
    sources = list(settings.checkpoint)
    if not sources and settings.rag is None:
        sources = [str(newest_run(settings.runs_dir))]
    names = settings.name or [name_of(source) for source in sources]
    if settings.rag is not None:
        sources, names = [*sources, f"{INDEX}{settings.rag}"], [*names, DOCUMENTS]
    for name in names:
        if not re.fullmatch(r"[\w.-]+", name):
            raise StartError(f"--name {name}: a name consists of letters, digits, '.', '-' and '_'")
        if names.count(name) > 1:
            raise StartError(f"two models are named {name!r}; give each its --name")
    return dict(zip(names, sources, strict=True))


def newest_run(runs_dir: Path) -> Path:
    """Return the best checkpoint of the newest run of the quickstart.

    Raises:
        StartError: If there is none.
    """
    found = sorted((runs_dir / QUICKSTART).glob("[0-9]*/checkpoints/best.ckpt"))
    if not found:
        raise StartError(
            f"there is nothing to serve: no run in {runs_dir / QUICKSTART}. Train the digits "
            "classifier by make quickstart, or name a model by --checkpoint PATH"
        )
    return max(found, key=lambda path: int(path.parent.parent.name))


def name_of(source: str) -> str:
    """Return the default name of a model."""
    if source.startswith(PREFIX):
        return name_in_registry(source)
    path = Path(source.removeprefix("package:")).expanduser()
    if path.parent.name == "checkpoints":  # runs/<experiment>/<version>/checkpoints/best.ckpt
        return path.absolute().parent.parent.parent.name
    name = path.absolute().name.removesuffix(".ckpt").removesuffix(".gguf")
    return re.sub(r"[^\w.-]", "-", name)
