"""A model is replaced while it is served, and nothing fails."""

import json
import threading
from pathlib import Path

import httpx

from modules import Classifier
from tests.support.requests import TEXTS, encoded, pairs, png
from tests.support.served_models import save, text_classifier
from tests.support.server import KEYS, ServerProcess

PATH = "/v1/models/reviews"


def test_inputs_and_results_are_sampled(server: ServerProcess) -> None:
    answer = server.http.post(f"{PATH}/classify", json={"inputs": TEXTS, "top_k": 2})
    server.post("/v1/models/digits/classify", {"inputs": [encoded(png())]})
    lines = [json.loads(line) for line in (server.log.parent / "samples.jsonl").open()]
    (line,) = [line for line in lines if line["id"] == answer.headers["x-request-id"]]
    assert (line["model"], line["operation"], line["inputs"]) == ("reviews", "classify", TEXTS)
    assert [[tuple(pair) for pair in row] for row in line["results"]] == pairs(
        answer.json()["predictions"]
    )
    assert lines[-1]["inputs"] == [encoded(png())]


def test_model_is_replaced_under_load(
    server: ServerProcess, sources: dict[str, Path], tmp_path: Path
) -> None:
    new = save(text_classifier(seed=9), tmp_path / "new.ckpt")
    admin = {"Authorization": f"Bearer {KEYS['admin']}"}
    body = {"checkpoint": str(new)}
    assert server.http.post(f"{PATH}/versions", json=body).status_code == 403
    missing = server.http.post(f"{PATH}/versions", json={"checkpoint": "x.ckpt"}, headers=admin)
    assert missing.status_code == 422

    statuses: list[int] = []
    done = threading.Event()

    def load() -> None:
        with httpx.Client(base_url=server.url, headers=dict(server.http.headers)) as client:
            while not done.is_set():
                answer = client.post(f"{PATH}/classify", json={"inputs": TEXTS}, timeout=60)
                statuses.append(answer.status_code)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert server.post(f"{PATH}/versions", body, headers=admin)["version"] > 1
        expected = Classifier.load_from_checkpoint(new, weights_only=True).eval().classify(TEXTS)
        answer = server.post(f"{PATH}/classify", {"inputs": TEXTS})
    finally:
        done.set()
        for thread in threads:
            thread.join()
        server.post(f"{PATH}/versions", {"checkpoint": str(sources["reviews"])}, headers=admin)
    assert pairs(answer["predictions"]) == [[pair] for pair in expected]
    assert len(statuses) >= 3
    assert set(statuses) == {200}
