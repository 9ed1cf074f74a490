"""Files of a data set are whole and verified, or there is one clear error."""

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
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import datamodules
from datamodules import MNIST
from datamodules.images.mnist import _read_idx
from datamodules.loading.files import default_data_dir, obtain
from tests.support import DATA_SETS
from tests.support.synthetic_data import idx

NOWHERE = "http://127.0.0.1:9/"  # nobody listens on the discard port
CONTENT = b"twenty-four bytes of data" * 40_000
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Handler(http.server.SimpleHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str], Path]]:
    """A mirror in this process: its URL, the paths it was asked for, its folder."""
    folder, asked = tmp_path / "mirror", []
    folder.mkdir()
    handler = type("Asked", (Handler,), {"asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=folder)) as s:
        threading.Thread(target=s.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{s.server_port}/", asked, folder
        s.shutdown()


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


def test_a_file_that_is_there_is_verified_and_not_fetched(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(CONTENT)
    assert obtain(path, [NOWHERE + "data.bin"], CHECKSUM) == path
    assert not path.with_name("data.bin.lock").exists()  # a read-only data folder is enough


def test_a_missing_file_is_downloaded_and_verified(tmp_path: Path, server: tuple) -> None:
    url, asked, folder = server
    (folder / "data.bin").write_bytes(CONTENT)
    path = obtain(tmp_path / "new/data.bin", [NOWHERE + "data.bin", url + "data.bin"], CHECKSUM)
    assert path.read_bytes() == CONTENT
    assert left(path.parent) == ["data.bin"]
    assert asked == ["/data.bin"]


def test_of_several_that_ask_at_once_one_downloads(tmp_path: Path, server: tuple) -> None:
    url, asked, folder = server
    (folder / "data.bin").write_bytes(CONTENT)
    path = tmp_path / "shared/data.bin"
    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(obtain, path, [url + "data.bin"], CHECKSUM) for _ in range(6)]
        assert [job.result().read_bytes() for job in jobs] == [CONTENT] * 6
    assert asked == ["/data.bin"]


def test_a_download_with_the_wrong_content_is_refused(tmp_path: Path, server: tuple) -> None:
    url, _, folder = server
    (folder / "data.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(MisconfigurationException, match=r"data\.bin"):
        obtain(tmp_path / "new/folder/data.bin", [url + "data.bin"], CHECKSUM)
    assert not (tmp_path / "new").exists()


def test_a_mirror_with_damaged_files_gives_way_to_the_next(tmp_path: Path, server: tuple) -> None:
    url, asked, folder = server
    (folder / "bad").mkdir()
    (folder / "bad/data.bin").write_bytes(CONTENT[:-1])
    (folder / "data.bin").write_bytes(CONTENT)
    path = obtain(tmp_path / "new/data.bin", [url + "bad/data.bin", url + "data.bin"], CHECKSUM)
    assert path.read_bytes() == CONTENT
    assert asked == ["/bad/data.bin", "/data.bin"]


def test_a_connection_that_breaks_off_gives_way_to_the_next(tmp_path: Path, server: tuple) -> None:
    class BreaksOff(http.server.BaseHTTPRequestHandler):
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
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), BreaksOff) as broken:
        threading.Thread(target=broken.serve_forever, daemon=True).start()
        first = f"http://127.0.0.1:{broken.server_port}/data.bin"
        path = obtain(tmp_path / "new/data.bin", [first, url + "data.bin"], CHECKSUM)
        broken.shutdown()
    assert path.read_bytes() == CONTENT


def test_an_address_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="could not be downloaded"):
        obtain(tmp_path / "data.bin", ["http://127.0.0.1/my file"], CHECKSUM)


def test_missing_without_network_says_what_where_and_what_else(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException) as error:
        obtain(tmp_path / "data.bin", [NOWHERE + "data.bin"], CHECKSUM)
    for part in ("data.bin", CHECKSUM, str(tmp_path), NOWHERE, "DATA_DIR", "configs/digits/cnn"):
        assert part in str(error.value)
    assert left(tmp_path) == []


def test_a_damaged_file_is_named_and_left_for_the_user_to_see(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(b"something else")
    with pytest.raises(
        MisconfigurationException, match=rf"{path} is damaged .*14 bytes.*Delete it"
    ):
        obtain(path, [NOWHERE + "data.bin"], CHECKSUM)
    assert path.read_bytes() == b"something else"


def test_data_dir_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_data_dir() == "data"
    monkeypatch.setenv("DATA_DIR", "/somewhere")
    assert default_data_dir() == "/somewhere"
    assert MNIST().data_dir == "/somewhere"
    assert MNIST(data_dir="/elsewhere").data_dir == "/elsewhere"


@pytest.mark.parametrize("name", DATA_SETS)
def test_mnist_downloads_what_is_missing(
    name: str, small_data: Path, server: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked, folder = server
    shutil.copytree(small_data / name / "raw", folder / "mirror")
    monkeypatch.setattr(DATA_SETS[name], "mirrors", [NOWHERE, url + "mirror/"])
    data = getattr(datamodules, name)(data_dir=str(tmp_path / "data"))
    data.prepare_data()
    data.setup("fit")
    assert len(asked) == 4
    data.prepare_data()  # now all is there
    assert len(asked) == 4


def test_idx_files_are_read_byte_by_byte(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "three.gz").write_bytes(gzip.compress(idx(values)))
    assert torch.equal(_read_idx(tmp_path / "three.gz"), torch.from_numpy(values))


@pytest.mark.parametrize("kind", ["cut off", "no gzip", "cut before compression", "empty"])
def test_a_file_that_cannot_be_unpacked_is_named(tmp_path: Path, kind: str) -> None:
    raw = idx(np.zeros((5, 28, 28), dtype=np.uint8))
    content = {
        "cut off": gzip.compress(raw)[:-12],
        "no gzip": raw,
        "cut before compression": gzip.compress(raw[:100]),
        "empty": b"",
    }[kind]
    path = tmp_path / "pictures.gz"
    path.write_bytes(content)
    with pytest.raises(MisconfigurationException, match=r"pictures\.gz"):
        _read_idx(path)
