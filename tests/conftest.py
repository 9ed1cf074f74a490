"""Shared fixtures: runs in a temporary folder, real or synthetic data, no network."""

import gc
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny nets: two threads mostly wait for each other
os.environ.setdefault("WANDB_SILENT", "true")
os.environ["HF_HUB_OFFLINE"] = "1"  # else `datasets` reports each opening

import pytest
import torch

import train
from engine.process import prepare_process
from tests.support import DATA_SETS, REAL, REAL_DIR
from tests.support.synthetic_data import make_mnist, make_texts, patch_checksums

prepare_process()
torch.set_num_threads(1)


def pytest_report_header() -> str:
    """Say on which data the tests run."""
    kinds = (f"{name} {'real' if name in REAL else 'synthetic'}" for name in DATA_SETS)
    return f"data: {', '.join(kinds)}; Digits real (looked in {REAL_DIR}, from DATA_DIR)"


def pytest_collection_finish() -> None:
    """All is imported: else the collector would go through it in every run of every test."""
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # what is frozen at the end of Python is taken for a leak


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in a folder of its own, without network or accounts."""
    true_connect = socket.socket.connect

    def connect(self: socket.socket, address: tuple | str) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            raise OSError(f"tests use no network, but {address} was asked for")
        true_connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("COLUMNS", "200")  # rich breaks no line of a table
    for name in ("DATA_DIR", "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def synthetic_data(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, dict[str, str]]]:
    """A data folder with a small copy of each data set, and the md5s of its files."""
    folder = tmp_path_factory.mktemp("made-data")
    return folder, {name: make_mnist(folder, name) for name in DATA_SETS}


@pytest.fixture
def small_data(synthetic_data: tuple[Path, dict], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of small data sets, whose checksums are right for the time of this test."""
    folder, checksums = synthetic_data
    for name, source in DATA_SETS.items():
        resources = [(file, checksums[name][file]) for file, _ in source.resources]
        monkeypatch.setattr(source, "resources", resources)
    return folder


@pytest.fixture(scope="session")
def made_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a small copy of each set of labelled texts."""
    return make_texts(tmp_path_factory.mktemp("made-texts"))


@pytest.fixture
def small_texts(made_texts: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of small texts, whose checksums are right for the time of this test."""
    patch_checksums(made_texts, monkeypatch)
    return made_texts


@pytest.fixture(autouse=True)
def _no_run_left_at_wandb() -> Iterator[None]:
    """A W&B run that a test leaves open would be taken for the next test's own."""
    yield
    wandb = sys.modules.get("wandb")
    if wandb is not None and hasattr(wandb, "finish"):
        wandb.finish()
        wandb.teardown()


@pytest.fixture
def data_of(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """The data folder for a data set: the real one where it is there, else the small one."""

    def data_of(name: str) -> Path:
        return REAL_DIR if name in REAL else request.getfixturevalue("small_data")

    return data_of


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The folder of a test's runs."""
    return tmp_path / "runs"


@pytest.fixture
def run(runs: Path) -> Callable[..., Path]:
    """Call train.py's main in this process; returns the run folder."""

    def run(*arguments: str | Path) -> Path:
        quiet = ["--trainer.enable_progress_bar", "false", "--runs_dir", str(runs)]
        return train.main([*map(str, arguments), *quiet])

    return run


@pytest.fixture
def refused(runs: Path, run: Callable, capsys) -> Callable[..., str]:
    """Run train.py with a mistake in it; returns the paragraph that it prints."""

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
