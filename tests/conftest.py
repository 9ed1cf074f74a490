"""Shared fixtures: runs in a temporary folder, real or synthetic data, no network."""

import gc
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # more threads slow tiny networks down
os.environ.setdefault("WANDB_SILENT", "true")
os.environ["HF_HUB_OFFLINE"] = "1"  # otherwise `datasets` sends a request per data set

import pytest

import train

# Torch and what imports it is imported in functions: the process that starts pytest-xdist's
# workers runs no test, and they wait for its imports.
from engine.process import prepare_process
from tests.support import DATA_SETS, REAL, REAL_DIR


def pytest_report_header() -> str:
    """Report which data sets are real and which are synthetic."""
    kinds = (f"{name} {'real' if name in REAL else 'synthetic'}" for name in DATA_SETS)
    return f"data: {', '.join(kinds)}; Digits real (DATA_DIR: {REAL_DIR})"


def pytest_collection_finish() -> None:
    """Use one thread, and exclude all imported objects from garbage collection.

    Every run of a test triggers a collection.
    """
    import torch

    prepare_process()
    torch.set_num_threads(1)
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # objects still frozen at exit are reported as leaks


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test in its own folder, without network access or accounts."""
    import torch

    true_connect = socket.socket.connect

    def connect(self: socket.socket, address: tuple | str) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            raise OSError(f"tests must not use the network, but one connects to {address}")
        true_connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    # Every run asks whether objects are frozen; counting those of the suite takes 0.1 s.
    monkeypatch.setattr(gc, "get_freeze_count", lambda: 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("COLUMNS", "200")  # wide enough for every table
    for name in ("DATA_DIR", "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def synthetic_data(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, dict[str, str]]]:
    """Return a data folder with small synthetic data sets, and the md5 of each file."""
    from tests.support.synthetic_data import make_mnist

    folder = tmp_path_factory.mktemp("synthetic-data")
    return folder, {name: make_mnist(folder, name) for name in DATA_SETS}


@pytest.fixture
def small_data(synthetic_data: tuple[Path, dict], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of synthetic data sets; the expected checksums are patched to theirs."""
    from torchvision import datasets

    folder, checksums = synthetic_data
    for name in DATA_SETS:
        source = getattr(datasets, name)
        resources = [(file, checksums[name][file]) for file, _ in source.resources]
        monkeypatch.setattr(source, "resources", resources)
    return folder


@pytest.fixture(scope="session")
def synthetic_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder with small synthetic text data sets."""
    from tests.support.synthetic_data import make_texts

    return make_texts(tmp_path_factory.mktemp("synthetic-texts"))


@pytest.fixture
def small_texts(synthetic_texts: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of synthetic texts; the expected checksums are patched to theirs."""
    from tests.support.synthetic_data import patch_checksums

    patch_checksums(synthetic_texts, monkeypatch)
    return synthetic_texts


@pytest.fixture(autouse=True)
def _finish_wandb_run() -> Iterator[None]:
    """Finish a W&B run that a test leaves open; otherwise the next test would reuse it."""
    yield
    wandb = sys.modules.get("wandb")
    if wandb is not None and hasattr(wandb, "finish"):
        wandb.finish()
        wandb.teardown()


@pytest.fixture
def data_of(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Return a function from a data set to its folder: the real one if present, else synthetic."""

    def data_of(name: str) -> Path:
        return REAL_DIR if name in REAL else request.getfixturevalue("small_data")

    return data_of


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return the folder of a test's runs."""
    return tmp_path / "runs"


@pytest.fixture
def run(runs: Path) -> Callable[..., Path]:
    """Return a function that calls train.py's main in this process and returns the run folder."""

    def run(*arguments: str | Path) -> Path:
        quiet = ["--trainer.enable_progress_bar", "false", "--runs_dir", str(runs)]
        return train.main([*map(str, arguments), *quiet])

    return run


@pytest.fixture
def refused(runs: Path, run: Callable, capsys) -> Callable[..., str]:
    """Return a function that runs train.py, expects a user error and returns its message."""

    def refused(*arguments: str | Path, leaves: int = 0) -> str:
        folders = len(list(runs.glob("*/*")))
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            run(*arguments)
        assert exit.value.code == 2
        text = capsys.readouterr().err
        errors = [line for line in text.splitlines() if line.startswith("train.py: error: ")]
        assert len(errors) == 1
        paragraph = text[text.index(errors[0]) :].strip()
        assert "Traceback" not in text
        assert "usage:" not in text
        assert "\n\n" not in paragraph
        assert 40 < len(paragraph) < 900
        assert len(list(runs.glob("*/*"))) == folders + leaves
        return paragraph

    return refused


@pytest.fixture(autouse=True)
def _no_tracking_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning's MLFlowLogger sets the variable, which later tests would take for the user's."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
