"""One request that fails, is slow, huge or abandoned does not affect the others."""

import concurrent.futures
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import ROOT
from tests.support.faulty_net import HOLD
from tests.support.served_models import faulty_classifier, image_classifier, language_model, save
from tests.support.server import ServerProcess, arguments
from tests.support.system import START_SECONDS

CLASSIFY = "/v1/models/faulty/classify"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("faults")
    sources = {
        "faulty": save(faulty_classifier(), folder / "faulty.ckpt"),
        "writer": save(language_model(), folder / "writer.ckpt"),
    }
    options = ("--queue_size", "8", "--max_new_tokens", "1000000", "--drain_seconds", "3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOLD, str(folder / "hold"))
        server = ServerProcess(folder, *arguments(sources), *options)
        yield server
        if server.process.is_alive():
            server.stop()


@pytest.fixture
def send(service: ServerProcess) -> Iterator[Callable[..., Any]]:
    """Return a function that sends a text in the background and returns a future response."""
    with concurrent.futures.ThreadPoolExecutor(16) as pool:

        def send(text: str, **options: Any) -> Any:
            body = {"inputs": [text]}
            url = service.url + CLASSIFY
            return pool.submit(httpx.post, url, json=body, timeout=START_SECONDS, **options)

        yield send


@contextlib.contextmanager
def held(service: ServerProcess, send: Any) -> Iterator[Any]:
    """Keep the network busy with a request, whose future response is returned."""
    hold = service.log.parent / "hold"
    hold.touch()
    try:
        slow = send("was")
        wait_until(lambda: depth(service) == 1)
        yield slow
    finally:
        hold.unlink()


def depth(service: ServerProcess) -> float:
    text = service.http.get("/metrics").text
    return float(re.findall(r"^stepladder_queue_depth (\S+)", text, re.MULTILINE)[0])


def batches(service: ServerProcess) -> int:
    """Return the number of batches since the start."""
    text = service.http.get("/metrics").text
    return int(float(re.findall(r"^stepladder_batch_size_count (\S+)", text, re.MULTILINE)[0]))


def wait_until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_failing_input_does_not_affect_its_batch(service: ServerProcess, send: Any) -> None:
    with held(service, send) as slow:
        sent = {text: send(text) for text in ("good", "bad", "very", "film")}
        wait_until(lambda: depth(service) == 5)  # four of them become one batch
    answers = {text: future.result() for text, future in sent.items()}
    assert slow.result().status_code == 200
    assert {text: answer.status_code for text, answer in answers.items()} == {
        "good": 200,
        "bad": 500,
        "very": 500,
        "film": 200,
    }
    assert "secret" not in answers["bad"].text
    assert "not finite" in answers["very"].json()["detail"]
    assert "secret" in service.log.read_text()


def test_killed_worker_is_restarted_and_waiting_requests_are_answered(
    service: ServerProcess, send: Any
) -> None:
    (before,), count = service.workers(), batches(service)
    with held(service, send) as slow:
        wait_until(lambda: batches(service) > count)
        waiting = [send(text) for text in ("good", "film", "the")]
        wait_until(lambda: depth(service) == 4)
        os.kill(before, signal.SIGKILL)
        assert slow.result().status_code == 503
        assert slow.result().headers["retry-after"] == "1"
    assert [one.result().status_code for one in waiting] == [200] * 3
    (after,) = service.workers()
    assert after != before
    assert service.http.get("/readyz").status_code == 200


def test_input_that_ends_the_process_fails_alone(service: ServerProcess, send: Any) -> None:
    assert send("is").result().status_code == 503
    assert send("good").result().status_code == 200


def test_late_answer_is_a_timeout(service: ServerProcess, send: Any) -> None:
    with held(service, send):
        assert send("good", headers={"Prefer": "wait=0.2"}).result().status_code == 504
    assert send("good").result().status_code == 200


def test_full_queue_refuses_requests(service: ServerProcess, send: Any) -> None:
    with held(service, send) as slow:
        answer = service.http.post(CLASSIFY, json={"inputs": ["good"] * 8})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert slow.result().status_code == 200


def test_abandoned_generation_ends(service: ServerProcess) -> None:
    body = {"inputs": ["Once"], "max_new_tokens": 1_000_000, "stream": True}
    path = "/v1/models/writer/generate"
    with service.http.stream("POST", path, json=body) as response:
        pieces = response.iter_text()
        next(pieces)
        assert depth(service) == 1
    wait_until(lambda: depth(service) == 0)
    body["stream"] = False
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(service.url + path, json=body, timeout=0.5)
    wait_until(lambda: depth(service) == 0)


def test_slow_client_does_not_block_others(service: ServerProcess) -> None:
    address = service.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1]))) as slow:
        slow.sendall(b"POST /v1/models/faulty/classify HTTP/1.1\r\nHost: a\r\nContent-Le")
        assert service.post(CLASSIFY, {"inputs": ["good"]})


def test_full_disk_for_logs_does_not_fail_requests(tmp_path: Path) -> None:
    source = save(image_classifier(), tmp_path / "digits.ckpt")
    options = ("--checkpoint", source, "--name", "digits", "--log_file", "/dev/full")
    server = ServerProcess(tmp_path, *options)
    try:
        body = server.http.get("/v1/models/digits").json()["examples"]["classify"]
        for _ in range(5):
            server.post("/v1/models/digits/classify", body)
    finally:
        assert server.stop() == 0
    assert "No space left" not in server.log.read_text()


def test_sigterm_finishes_accepted_requests(service: ServerProcess, send: Any) -> None:
    codes: list[int | None] = []
    stopping = threading.Thread(target=lambda: codes.append(service.stop()))
    url = service.url
    with held(service, send) as slow:
        accepted = send("good")
        wait_until(lambda: depth(service) == 2)
        stopping.start()
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 503)
        assert httpx.get(f"{url}/healthz").status_code == 200
    assert [slow.result().status_code, accepted.result().status_code] == [200, 200]
    stopping.join()
    assert codes == [0]


def test_start_errors_are_one_message(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    import serve

    bad_keys = tmp_path / "keys"
    bad_keys.write_text("someone secret\n")
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = str(used.getsockname()[1])
        for options, expected in (
            ([], "make quickstart"),
            (["--checkpoint", "a.ckpt", "--port", port], "another port"),
            (["--checkpoint", "a.ckpt", "--keys_file", str(bad_keys)], "line 1"),
            (["--checkpoint", "a.ckpt", "--host", "0.0.0.0"], "--keys_file"),
            (["--checkpoint", "a.ckpt", "--port", "x"], "--port"),
            (["--checkpoint", "a", "--checkpoint", "a"], "--name"),
        ):
            with pytest.raises(SystemExit) as exit:
                serve.main(options)
            message = capfd.readouterr().err
            assert exit.value.code == 2
            assert expected in message
            assert message.startswith("serve.py: error: ")
            assert message.count("\n") == 1


def test_help_does_not_import_torch() -> None:
    code = "import sys, serve\ntry:\n serve.main(['--help'])\nexcept SystemExit:\n pass\n"
    code += "assert not {'torch', 'lightning', 'fastapi'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--checkpoint" in done.stdout


@pytest.mark.slow
def test_command_serves_the_newest_quickstart_run(tmp_path: Path) -> None:
    best = tmp_path / "runs/digits-cnn/002/checkpoints/best.ckpt"
    best.parent.mkdir(parents=True)
    save(image_classifier(), best)
    command = [sys.executable, str(ROOT / "serve.py"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        found = re.match(
            r"Serving digits-cnn at (http://127\.0\.0\.1:\d+)", process.stdout.readline()
        )
        assert found is not None
        model = httpx.get(f"{found[1]}/v1/models/digits-cnn").json()
        answer = httpx.post(
            f"{found[1]}/v1/models/digits-cnn/classify", json=model["examples"]["classify"]
        )
        assert answer.status_code == 200
        process.terminate()
        assert process.wait(START_SECONDS) == 0
