"""Questions about documents over HTTP: the answers of rag.py, through a real server process."""

import os
import shutil
import signal
from multiprocessing import get_context
from pathlib import Path

import pytest

import serve
from retrieval.documents import Document
from retrieval.encoders import SentenceVectors
from retrieval.indexing import update_index
from retrieval.opening import AnsweringSettings, open_answering
from serving.security import digest
from tests.support.retrieval import ANIMALS, small_documents
from tests.support.server import KEYS, ServerProcess, run_server
from tests.support.system import START_SECONDS

OAK = "How long lives an oak?"


def ask(server: ServerProcess, question: str = OAK, **more: object) -> dict:
    return server.post("/v1/answer", {"question": question, **more})


def test_answer_is_that_of_rag(answering: ServerProcess, index: Path) -> None:
    expected = open_answering(AnsweringSettings(index, threshold=0)).ask(OAK)
    found = ask(answering)
    assert {name: found[name] for name in expected.as_dict()} == expected.as_dict()
    assert found["answer"] == "An oak lives for five hundred years."
    assert not found["abstained"]
    (citation,) = found["citations"]
    text = next(d.text for d in small_documents() if d.name == citation["document"])
    assert text[citation["start"] : citation["end"]] == citation["text"]
    for passage in found["passages"]:
        text = next(d.text for d in small_documents() if d.name == passage["document"])
        assert text[passage["start"] : passage["end"]] == passage["text"]
    assert len(ask(answering, top_k=1)["passages"]) == 1 < len(found["passages"])


def test_follow_up_question_is_searched_with_its_subject(answering: ServerProcess) -> None:
    whale = {"question": "What does a whale breathe?", "answer": "air"}
    second = {"question": "And how deep does it dive?", "answer": "a mile"}
    found = ask(answering, "And for what?", history=[whale, second])
    assert found["question"] == f"{whale['question']} {second['question']} And for what?"
    assert found["answer"] == "It dives for squid, a mile deep."
    assert ask(answering, "What is chalk?", history=[whale])["question"] == "What is chalk?"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"question": " \n"}, 422),
        ({"question": "a" * 1001}, 422),
        ({"question": "a", "history": [{"question": "b", "answer": "c" * 1000}]}, 422),
        ({"question": "a", "top_k": 0}, 422),
        ({"question": "a", "top_k": 21}, 422),
        ({"question": "a", "history": [{"question": "b", "answer": "c"}] * 21}, 422),
        ({"question": "a", "typo": 1}, 422),
        ("{", 400),
    ],
)
def test_invalid_question_is_a_problem(
    answering: ServerProcess, body: dict | str, status: int
) -> None:
    options = {"content": body} if isinstance(body, str) else {"json": body}
    response = answering.http.post("/v1/answer", **options)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"


def test_index_is_listed_documented_and_counted(answering: ServerProcess) -> None:
    (model,) = answering.http.get("/v1/models").json()["data"]
    assert (model["id"], model["operations"], model["documents"]) == ("documents", ["answer"], 3)
    assert "POST /v1/answer" in answering.http.get("/docs").text
    ask(answering)
    metrics = answering.http.get("/metrics").text
    assert 'stepladder_answers_total{outcome="answered"}' in metrics
    assert 'stepladder_requests_total{route="/v1/answer",status="200"}' in metrics
    refused = answering.http.post("/v1/models/documents/classify", json={"inputs": ["a"]})
    assert refused.status_code == 404


def test_server_without_an_index_has_no_such_route(server: ServerProcess) -> None:
    assert server.http.post("/v1/answer", json={"question": OAK}).status_code == 404
    assert "/v1/answer" not in server.http.get("/openapi.json").json()["paths"]


def test_keys_late_answer_killed_worker_and_other_indexes(
    index: Path, sources: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(index, tmp_path / "index")
    (tmp_path / "keys").write_text(f"admin {digest(KEYS['admin'])} admin\n")
    server = ServerProcess(tmp_path / "server", "--rag", folder, "--keys_file", tmp_path / "keys")
    assert server.http.post("/v1/answer", json={"question": OAK}).status_code == 401
    server.http.headers["Authorization"] = f"Bearer {KEYS['admin']}"
    try:
        abstained = ask(server, "xyzzy")  # below the threshold of the calibration
        assert (abstained["abstained"], abstained["citations"]) == (True, [])
        new = Document("new.md", ANIMALS.replace("owl", "eagle"))
        update_index(folder, [new], SentenceVectors(str(sources["embedder"])))
        assert {passage["document"] for passage in ask(server)["passages"]} == {"new.md"}
        (worker,) = server.workers()
        os.kill(worker, signal.SIGSTOP)
        headers = {"Prefer": "wait=0.2"}
        late = server.http.post("/v1/answer", json={"question": OAK}, headers=headers)
        assert late.status_code == 504
        assert server.http.get("/healthz").status_code == 200  # the event loop does not wait
        os.kill(worker, signal.SIGKILL)
        assert ask(server)["passages"]  # by the next worker
        assert server.workers() != [worker]
        server.post("/v1/models/documents/versions", {"checkpoint": str(index)})
        assert {passage["document"] for passage in ask(server)["passages"]} > {"plants.txt"}
    finally:
        assert server.stop() == 0


def test_missing_index_is_one_message(tmp_path: Path) -> None:
    files = (tmp_path / "stdout", tmp_path / "stderr")
    process = get_context("forkserver").Process(
        target=run_server, args=(["--rag", "missing", "--port", "0"], *files, dict(os.environ))
    )
    process.start()
    process.join(START_SECONDS)
    assert process.exitcode == 2
    message = files[1].read_text()
    assert message.startswith("serve.py: error: missing is not an index")
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rag_reader", "a", "--rag_generator", "b"], "exclude each other"),
        (["--checkpoint", "a", "--name", "documents"], "two models are named 'documents'"),
        (["--rag_passages", "0"], "--rag_passages"),
    ],
)
def test_mistake_is_one_message(
    arguments: list[str], message: str, capfd: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit, match="2"):
        serve.main(["--rag", "INDEX", *arguments])
    printed = capfd.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
