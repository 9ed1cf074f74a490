"""One server for all tests of the API."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving.security import digest
from tests.support.retrieval import make_index
from tests.support.served_models import make_models
from tests.support.server import KEYS, ServerProcess, arguments


@dataclass
class Service:
    """The server and the sources of its models by name."""

    server: ServerProcess
    sources: dict[str, Path]


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def server(
    sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    keys = folder / "keys"
    lines = [f"{name} {digest(key)}{' admin' * (name == 'admin')}" for name, key in KEYS.items()]
    keys.write_text("\n".join(lines))
    limits = ("--max_items", "8", "--max_characters", "1000", "--max_pixels", "10000")
    limits += ("--max_new_tokens", "100")
    samples = ("--samples_file", folder / "samples.jsonl", "--samples_fraction", "1")
    options = ("--keys_file", keys, *limits, "--max_body", "200000", *samples)
    server = ServerProcess(folder, *arguments(sources), *options)
    server.http.headers["Authorization"] = f"Bearer {KEYS['client']}"
    yield server
    assert server.stop() == 0
    log = server.log.read_text()
    assert "Traceback" not in log, log


@pytest.fixture(scope="session")
def index(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_index(tmp_path_factory.mktemp("index") / "index", sources["embedder"])


@pytest.fixture(scope="session")
def answering(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Yield a server of an index alone; its answers are never below the threshold."""
    folder = tmp_path_factory.mktemp("answering")
    options = ("--rag_threshold", "0", "--max_characters", "1000")
    server = ServerProcess(folder, "--rag", index, *options)
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()
