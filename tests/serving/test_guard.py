"""A guard judges what language models and documents are asked, and what they answer."""

import re
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from retrieval.opening import AnsweringSettings, open_answering
from safety.guard import Guard
from tests.support.safety_data import make_guard
from tests.support.server import ServerProcess, arguments

HARMFUL, HARMLESS = "good", "bad"  # by a guard with suitable random weights
OAK = "How long lives an oak?"


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Return a guard and a threshold between the probabilities of HARMFUL and HARMLESS."""
    folder = tmp_path_factory.mktemp("guard")
    for seed in range(20):
        path = make_guard(folder / f"{seed}.ckpt", seed=seed)
        harmful, harmless = Guard(path).judge([HARMFUL, HARMLESS])
        if harmful > harmless:
            return path, (harmful + harmless) / 2
    raise AssertionError("unreachable")


@pytest.fixture(scope="module")
def server(
    guard: tuple[Path, float],
    index: Path,
    sources: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServerProcess]:
    models = {name: sources[name] for name in ("writer", "reviews")}
    path, threshold = guard
    options = ("--guard", path, "--guard_threshold", f"{threshold}", "--rag", index)
    folder = tmp_path_factory.mktemp("server")
    server = ServerProcess(folder, *arguments(models), *options, "--rag_threshold", "0")
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


def refused(server: ServerProcess, stage: str) -> float:
    """Return how many inputs or outputs were refused."""
    text = server.http.get("/metrics").text
    pattern = rf'^stepladder_refused_total{{stage="{stage}"}} (\S+)'
    return sum(map(float, re.findall(pattern, text, re.MULTILINE)))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/models/writer/generate", {"inputs": [HARMLESS, HARMFUL]}),
        ("/v1/models/writer/generate", {"inputs": [HARMFUL], "stream": True}),
        ("/v1/answer", {"question": HARMFUL}),
        ("/v1/answer", {"question": HARMLESS, "history": [{"question": HARMFUL, "answer": "a"}]}),
    ],
)
def test_harmful_input_is_refused(server: ServerProcess, path: str, body: dict) -> None:
    before = refused(server, "input")
    response = server.http.post(path, json=body)
    assert response.status_code == 403
    document = response.json()
    assert document["type"] == "urn:stepladder:refused"
    assert "input" in document["detail"]
    assert refused(server, "input") == before + 1
    assert 'stepladder_errors_total{kind="refused"}' in server.http.get("/metrics").text


def test_openai_client_gets_an_error(server: ServerProcess) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    messages = [{"role": "user", "content": HARMFUL}]
    with pytest.raises(openai.PermissionDeniedError) as error:
        client.chat.completions.create(model="writer", messages=messages)
    assert error.value.code == "refused"


def test_harmless_input_and_labels_are_answered(server: ServerProcess, guard: tuple) -> None:
    found = server.post("/v1/models/reviews/classify", {"inputs": [HARMFUL]})
    assert found["predictions"]  # of a model that writes no text
    prompt = {"inputs": [HARMLESS], "max_new_tokens": 1, "seed": 1}
    response = server.http.post("/v1/models/writer/generate", json=prompt)
    path, threshold = guard
    text = response.json()["outputs"][0]["text"] if response.status_code == 200 else None
    assert text is None or max(Guard(path).judge([text])) < threshold


def test_harmful_output_is_withheld(index: Path, guard: tuple[Path, float], tmp_path: Path) -> None:
    path, _ = guard
    judge = Guard(path).judge
    words = ("good", "bad", "film", "a", "the", "was")
    question = min((f"{w} {w} {w} {OAK}" for w in words), key=lambda text: judge([text])[0])
    answer = open_answering(AnsweringSettings(index, threshold=0)).ask(question).answer
    harm = judge([question, answer])
    assert harm[0] < harm[1]
    options = ("--guard", path, "--guard_threshold", f"{sum(harm) / 2}", "--rag_threshold", "0")
    server = ServerProcess(tmp_path / "server", "--rag", index, *options)
    try:
        response = server.http.post("/v1/answer", json={"question": question})
        assert response.status_code == 403
        assert "output" in response.json()["detail"]
        assert answer not in response.text
        assert (refused(server, "input"), refused(server, "output")) == (0, 1)
    finally:
        assert server.stop() == 0


def test_guard_is_not_listed(server: ServerProcess) -> None:
    listed = [model["id"] for model in server.http.get("/v1/models").json()["data"]]
    assert listed == ["writer", "reviews", "documents"]
    assert server.http.get("/v1/models/:guard").status_code == 404
