"""Downloads of data sets: complete and verified, or one clear error."""

import gzip
import hashlib
import http.server
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

import datamodules
from datamodules import MNIST
from datamodules.images.mnist import _read_idx
from datamodules.loading.files import default_data_dir, obtain
from engine.errors import UserError
from tests.support import DATA_SETS
from tests.support.synthetic_data import idx

CLOSED_PORT = "http://127.0.0.1:9/"  # nothing listens on the discard port
CONTENT = b"twenty-four bytes of data" * 40_000
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Handler(http.server.SimpleHTTPRequestHandler):
    requested: list[str]

    def do_GET(self) -> None:
        self.requested.append(self.path)
        super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str], Path]]:
    """A mirror in this process: its URL, the requested paths, its folder."""
    folder, requested = tmp_path / "mirror", []
    folder.mkdir()
    handler = type("RecordingHandler", (Handler,), {"requested": requested})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=folder)) as s:
        threading.Thread(target=s.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{s.server_port}/", requested, folder
        s.shutdown()


def remaining_files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


def test_existing_file_is_verified_and_not_downloaded(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(CONTENT)
    assert obtain(path, [CLOSED_PORT + "data.bin"], CHECKSUM) == path
    assert not path.with_name("data.bin.lock").exists()  # a read-only data folder is enough


def test_missing_file_is_downloaded_and_verified(tmp_path: Path, server: tuple) -> None:
    url, requested, folder = server
    (folder / "data.bin").write_bytes(CONTENT)
    path = obtain(tmp_path / "new/data.bin", [CLOSED_PORT + "data.bin", url + "data.bin"], CHECKSUM)
    assert path.read_bytes() == CONTENT
    assert remaining_files(path.parent) == ["data.bin"]
    assert path.stat().st_mode & 0o777 == 0o644  # a data folder may be shared
    assert requested == ["/data.bin"]


def test_concurrent_requests_download_once(tmp_path: Path, server: tuple) -> None:
    url, requested, folder = server
    (folder / "data.bin").write_bytes(CONTENT)
    path = tmp_path / "shared/data.bin"
    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(obtain, path, [url + "data.bin"], CHECKSUM) for _ in range(6)]
        assert [job.result().read_bytes() for job in jobs] == [CONTENT] * 6
    assert requested == ["/data.bin"]


def test_download_with_wrong_checksum_is_an_error_and_leaves_nothing(
    tmp_path: Path, server: tuple
) -> None:
    url, _, folder = server
    (folder / "data.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=r"data\.bin"):
        obtain(tmp_path / "new/folder/data.bin", [url + "data.bin"], CHECKSUM)
    assert not (tmp_path / "new").exists()


def test_next_mirror_is_tried_after_a_wrong_checksum(tmp_path: Path, server: tuple) -> None:
    url, requested, folder = server
    (folder / "bad").mkdir()
    (folder / "bad/data.bin").write_bytes(CONTENT[:-1])
    (folder / "data.bin").write_bytes(CONTENT)
    path = obtain(tmp_path / "new/data.bin", [url + "bad/data.bin", url + "data.bin"], CHECKSUM)
    assert path.read_bytes() == CONTENT
    assert requested == ["/bad/data.bin", "/data.bin"]


def test_next_mirror_is_tried_after_a_broken_connection(tmp_path: Path, server: tuple) -> None:
    class Truncating(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"ff\r\ncut")
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    url, _, folder = server
    (folder / "data.bin").write_bytes(CONTENT)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Truncating) as broken:
        threading.Thread(target=broken.serve_forever, daemon=True).start()
        first = f"http://127.0.0.1:{broken.server_port}/data.bin"
        path = obtain(tmp_path / "new/data.bin", [first, url + "data.bin"], CHECKSUM)
        broken.shutdown()
    assert path.read_bytes() == CONTENT


def test_invalid_url_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="could not be downloaded"):
        obtain(tmp_path / "data.bin", ["http://127.0.0.1/my file"], CHECKSUM)


def test_missing_file_without_network_names_file_folder_and_alternatives(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        obtain(tmp_path / "data.bin", [CLOSED_PORT + "data.bin"], CHECKSUM)
    for part in (
        "data.bin",
        CHECKSUM,
        str(tmp_path),
        CLOSED_PORT,
        "DATA_DIR",
        "configs/digits/cnn",
    ):
        assert part in str(error.value)
    assert remaining_files(tmp_path) == []


def test_checksum_mismatch_names_file_and_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match=rf"{path} is damaged .*14 bytes.*Delete it"):
        obtain(path, [CLOSED_PORT + "data.bin"], CHECKSUM)
    assert path.read_bytes() == b"something else"


def test_data_dir_defaults_to_the_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_data_dir() == "data"
    monkeypatch.setenv("DATA_DIR", "/somewhere")
    assert default_data_dir() == "/somewhere"
    assert MNIST().data_dir == "/somewhere"
    assert MNIST(data_dir="/elsewhere").data_dir == "/elsewhere"


@pytest.mark.parametrize("name", DATA_SETS)
def test_mnist_downloads_missing_files(
    name: str, small_data: Path, server: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, requested, folder = server
    shutil.copytree(small_data / name / "raw", folder / "mirror")
    monkeypatch.setattr(getattr(datasets, name), "mirrors", [CLOSED_PORT, url + "mirror/"])
    data = getattr(datamodules, name)(data_dir=str(tmp_path / "data"))
    data.prepare_data()
    data.setup("fit")
    assert len(requested) == 4
    data.prepare_data()  # all files exist now
    assert len(requested) == 4


def test_idx_file_is_decoded(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "three.gz").write_bytes(gzip.compress(idx(values)))
    assert torch.equal(_read_idx(tmp_path / "three.gz"), torch.from_numpy(values))


@pytest.mark.parametrize("kind", ["truncated", "not gzip", "truncated before compression", "empty"])
def test_file_that_cannot_be_unpacked_is_named(tmp_path: Path, kind: str) -> None:
    raw = idx(np.zeros((5, 28, 28), dtype=np.uint8))
    content = {
        "truncated": gzip.compress(raw)[:-12],
        "not gzip": raw,
        "truncated before compression": gzip.compress(raw[:100]),
        "empty": b"",
    }[kind]
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"images\.gz"):
        _read_idx(path)
