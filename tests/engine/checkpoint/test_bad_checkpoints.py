"""Checkpoints of unknown origin execute no code; one that does not fit is refused with a reason."""

import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch

import train
from engine.checkpoint.reading import read_checkpoint
from engine.errors import UserError
from tests.support import TINY

SMALL = ("--config", TINY)


class Trap:
    """Create a file when a pickle of it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


class OtherTask(L.LightningModule):
    """Another task."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    flags = ("--trainer.max_epochs", 1, "--trainer.enable_progress_bar", "false")
    return train.main([str(a) for a in ("fit", *SMALL, *flags, "--runs_dir", folder)])


@pytest.fixture
def good(trained: Path, tmp_path: Path) -> Path:
    """A copy of a readable checkpoint."""
    return Path(shutil.copy(trained / "checkpoints/best.ckpt", tmp_path / "good.ckpt"))


def broken_files(folder: Path) -> dict[str, Path]:
    files = {name: folder / f"{name}.ckpt" for name in ("text", "empty", "zip", "list", "weights")}
    files["text"].write_text("not weights")
    files["empty"].touch()
    with zipfile.ZipFile(files["zip"], "w") as archive:
        archive.writestr("readme.txt", "no weights")
    torch.save([1, 2, 3], files["list"])
    torch.save({"layers.weight": torch.zeros(3)}, files["weights"])
    return files


def flag(command: str) -> str:
    """Return the option of a command that takes a checkpoint."""
    return "--init_from" if command == "fit" else "--ckpt_path"


@pytest.mark.parametrize("kind", ["text", "empty", "zip", "list", "weights"])
@pytest.mark.parametrize("command", ["fit", "test"])
def test_file_that_is_not_a_checkpoint_is_refused(refused, tmp_path, kind, command) -> None:
    path = broken_files(tmp_path)[kind]
    paragraph = refused(command, *SMALL, flag(command), path)
    assert f"{path} is not a checkpoint" in paragraph


def test_missing_checkpoint_is_reported(refused) -> None:
    assert "nowhere.ckpt" in refused("test", *SMALL, "--ckpt_path", "nowhere.ckpt")


def test_truncated_checkpoint_is_refused(refused, good: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.ckpt"
    path.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    assert f"{path} is not a checkpoint" in refused("test", *SMALL, "--ckpt_path", path)


@pytest.mark.parametrize("way", ["torch.save", "pickle"])
@pytest.mark.parametrize("command", ["fit", "test", "predict"])
def test_checkpoint_that_would_execute_code_is_refused(
    refused, good, tmp_path, way, command
) -> None:
    trace, path = tmp_path / "executed", tmp_path / "trap.ckpt"
    content = torch.load(good, weights_only=True) | {"hyper_parameters": {"net": Trap(trace)}}
    if way == "pickle":
        path.write_bytes(pickle.dumps(content["hyper_parameters"]))
    else:
        torch.save(content, path)
    paragraph = refused(command, *SMALL, flag(command), path)
    assert f"{path} is refused" in paragraph
    assert not trace.exists()
    if way == "pickle":  # loading it without protection executes the code
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert trace.exists()


def test_read_checkpoint_refuses_to_execute_code(tmp_path: Path) -> None:
    trace, path = tmp_path / "executed", tmp_path / "trap.ckpt"
    torch.save({"state_dict": {}, "net": Trap(trace)}, path)
    with pytest.raises(UserError, match="would execute code"):
        read_checkpoint(path)
    assert not trace.exists()


def test_checkpoint_of_another_task_is_refused(refused, good: Path, tmp_path: Path) -> None:
    content = torch.load(good, weights_only=True)
    content["hyper_parameters"]["_class_path"] = f"{__name__}.OtherTask"
    torch.save(content, tmp_path / "other.ckpt")
    paragraph = refused("test", *SMALL, "--ckpt_path", tmp_path / "other.ckpt")
    for part in ("other.ckpt", "OtherTask", "Classifier"):
        assert part in paragraph


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_checkpoint_of_another_network_is_refused(refused, good: Path, command: str) -> None:
    other = ("--config", TINY, "--model.net", "modules.nets.MLP", "--trainer.max_epochs", "2")
    paragraph = refused(command, *other, "--ckpt_path", good)
    for part in (str(good), "CNN", "MLP"):
        assert part in paragraph


def test_checkpoint_of_another_size_names_the_first_weight_that_differs(refused, good) -> None:
    other = (*SMALL, "--model.net.channels", "[6]")
    paragraph = refused("test", *other, "--ckpt_path", good)
    for part in (str(good), "net.features.0.weight", "(4, 1, 3, 3)", "(6, 1, 3, 3)"):
        assert part in paragraph


def test_checkpoint_with_fewer_layers_names_a_missing_weight(refused, good) -> None:
    other = (*SMALL, "--model.net.channels", "[4, 4]")
    assert "missing in the checkpoint" in refused("test", *other, "--ckpt_path", good)


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_checkpoint_of_other_classes_is_refused(refused, good: Path, command: str) -> None:
    content = torch.load(good, weights_only=True)
    names = content["hyper_parameters"]["class_names"]
    content["hyper_parameters"]["class_names"] = names[::-1]
    torch.save(content, good)
    assert "was trained on the classes 9, 8, 7" in refused(command, *SMALL, "--ckpt_path", good)


@pytest.mark.parametrize("command", ["test", "--resume"])
def test_checkpoint_of_another_vocabulary_of_equal_size_is_refused(
    refused, run: Callable[..., Path], tmp_path: Path, command: str
) -> None:
    def write(words: list[str]) -> None:
        rows = [
            f"{words[n % 2]} {words[2 + n % 3]},{'bad' if n % 2 else 'good'}" for n in range(60)
        ]
        (tmp_path / "texts.csv").write_text("\n".join(["text,label", *rows]))

    flags: list[object] = [*SMALL, "--model.net"]
    flags += ["modules.nets.BagOfWords", "--data", "datamodules.TextTable"]
    flags += ["--data.train", tmp_path / "texts.csv", "--data.min_count", 1]
    flags += ["--data.batch_size", 4, "--trainer.max_epochs", 1, "--trainer.callbacks", "[]"]
    write(["fine", "dull", "film", "plot", "cast"])
    folder = run("fit", *flags)
    write(["dull", "fine", "cast", "film", "plot"])
    last = folder / "checkpoints/last.ckpt"
    resume, test = ("fit", "--resume", folder), ("test", "--ckpt_path", last)
    command_line = resume if command == "--resume" else test
    paragraph = refused(*command_line, *flags)
    assert f"{last} was trained with another vocabulary: 7 tokens" in paragraph


@pytest.mark.parametrize("name", ["best", "last"])
def test_ckpt_path_must_be_a_file(refused, name: str) -> None:
    paragraph = refused("test", *SMALL, "--ckpt_path", name)
    assert "ckpt_path" in paragraph
    assert f"checkpoints/{name}.ckpt" in paragraph
