"""Model folders of the Hugging Face format: `config.json` and safetensors."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor


class UnsupportedError(ValueError):
    """An architecture or option of transformers that our own networks do not have."""


def read_config(folder: Path) -> dict[str, Any]:
    """Return the contents of config.json.

    Raises:
        FileNotFoundError: If there is no config.json.
        ValueError: If it is not a JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a Hugging Face folder: it has no config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold a JSON object")
    return config


def check_options(folder: Path, config: dict[str, Any], supported: dict[str, tuple]) -> None:
    """Check options of a config against the values that our network supports.

    Args:
        folder: Where the config comes from, for the message.
        config: The contents of config.json.
        supported: Supported values of each option; the first one applies where it is left out.

    Raises:
        UnsupportedError: If an option has another value.
    """
    for option, values in supported.items():
        value = config.get(option, values[0])
        if value not in values:
            raise UnsupportedError(f"{folder}: option {option}={value!r} is not supported")


def check_names(folder: Path, expected: set[str], found: set[str]) -> None:
    """Check that a folder has the weights of a network.

    Raises:
        ValueError: With the number of missing or unexpected weights and the names of the first.
    """
    # Buffers of old versions, and the output layer of networks that use the embedding instead.
    ignored = (
        *("attn.bias", "attn.masked_bias", "attention.bias", "attention.masked_bias"),
        *("inv_freq", "lm_head.weight", "embed_out.weight"),
    )
    report_names(
        folder,
        {
            "no weights for": sorted(expected - found),
            "unexpected weights": sorted(
                name for name in found - expected if not name.endswith(ignored)
            ),
        },
    )


def report_names(folder: Path, wrong: dict[str, list[str]]) -> None:
    """Raise an error if there are wrong weights.

    Args:
        folder: Folder of the weights.
        wrong: Names of weights by what is wrong with them.

    Raises:
        ValueError: If there are any.
    """
    listed = [f"{what} {abbreviate(names)}" for what, names in wrong.items() if names]
    if listed:
        raise ValueError(f"{folder} does not fit its config.json: {'; '.join(listed)}")


def abbreviate(names: list[str]) -> str:
    """List the first three names, and how many there are."""
    number = f", … ({len(names)} in total)" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{number}"


def tensor_files(folder: Path) -> dict[str, Path]:
    """Return the file of each tensor of a folder: one file, or the shards that an index lists.

    Only the heads of the files are read.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged, or the index and the files disagree.
    """
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        path = folder / "model.safetensors"
        return dict.fromkeys(tensor_names(path), path)
    try:
        listed: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {name: folder / file for name, file in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is not an index of shards: it has no `weight_map`") from error
    for path in sorted({*files.values()}):
        stored = {*tensor_names(path)}
        expected = {name for name, file in files.items() if file == path}
        if lacking := sorted(expected - stored):
            raise ValueError(f"{path} lacks tensors that {index.name} lists: {abbreviate(lacking)}")
        if other := sorted(stored - expected):
            raise ValueError(f"{path} has tensors that {index.name} omits: {abbreviate(other)}")
    return files


def tensor_names(path: Path) -> list[str]:
    """Return the names of the tensors of a safetensors file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.parent} has no {path.name}; only weights in the safetensors format can be read"
        )
    try:
        with safe_open(path, framework="pt") as file:
            return [*file.keys()]
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or incomplete: {error}") from error


def read_tensor(path: Path, name: str) -> Tensor:
    """Return a tensor of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        tensor: Tensor = file.get_tensor(name)
        return tensor


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of a folder, from one file or from several shards.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged, or the index and the files disagree.
    """
    tensors: dict[str, Tensor] = {}
    for path in sorted({*tensor_files(folder).values()}):
        tensors |= load_file(path)
    return tensors


def write_folder(folder: str | Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Write config.json and model.safetensors; create the folder where it does not exist."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # safetensors refuses views that share memory, such as the parts of one larger matrix.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
