"""Serve the capstone, and test it as it is served: the page, answers, refusals, and load."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.serving.load import Server
from benchmarks.soak import soak
from engine.errors import UserError
from pipelines.capstone.settings import Load
from pipelines.served import served
from serving.errors import TYPES


def try_service(
    arguments: Sequence[str | Path],
    expected: Mapping[str, str | None],
    harmful: Sequence[str],
    load: Load,
) -> dict[str, Any]:
    """Return the metrics `smoke/…` and `load/…`.

    Args:
        arguments: Arguments of serve.py.
        expected: Question to the answer of the same parts without a server; None where the guard
            refuses it.
        harmful: Questions that the guard must refuse.
        load: The load test.

    Raises:
        UserError: If the server does not start, or a request fails otherwise than by a refusal.
    """
    with served(*arguments) as (process, url):
        client = httpx.Client(base_url=url, timeout=60)
        page = client.get("/")
        metrics: dict[str, Any] = {
            "smoke/page": float(page.status_code == 200 and "Ask the documents" in page.text)
        }
        equal = [_ask(client, question) == answer for question, answer in expected.items()]
        refused = [_ask(client, question) is None for question in harmful]
        metrics["smoke/equal"] = sum(equal) / len(equal)
        if refused:
            metrics["smoke/refused"] = sum(refused) / len(refused)
        answered = [question for question, answer in expected.items() if answer is not None]
        if not answered:
            raise UserError("the guard refuses all questions: train it longer.")
        bodies = [json.dumps({"question": question}) for question in answered]
        server = Server(process, f"{url}/v1/answer")
        result = soak(server, bodies, load.rate, load.seconds, load.clients, since_planned=True)
        latencies = [round(1000 * seconds, 2) for seconds in sorted(result.latencies)]
        if not latencies:
            raise UserError(f"the server answered no question: {result.failed[:1]}.")
        return metrics | {
            "load/rate": round(len(latencies) / max(load.seconds, result.memory[-1][0]), 2),
            "load/failed": len(result.failed) + result.refused,
            "load/p50_ms": round(1000 * result.percentile(50), 2),
            "load/p99_ms": round(1000 * result.percentile(99), 2),
            "load/memory_mb": round(max(memory for _, memory in result.memory), 1),
            "latencies_ms": latencies,
        }


def _ask(client: httpx.Client, question: str) -> str | None:
    """Return the answer to a question, or None if the guard refuses it."""
    response = client.post("/v1/answer", json={"question": question})
    document = response.json()
    if document.get("type") == TYPES["refused"]:
        return None
    if response.status_code != 200:
        raise UserError(f"/v1/answer: {response.status_code} {response.text}")
    answer: str = document["answer"]
    return answer
