"""Model folders of the Hugging Face format: `config.json` and safetensors."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
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


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of a folder, from one file or from several shards.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged.
    """
    index = folder / "model.safetensors.index.json"
    names = {"model.safetensors"}
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    tensors: dict[str, Tensor] = {}
    for name in sorted(names):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} has no {name}; only weights in the safetensors format can be read"
            )
        try:
            tensors |= load_file(folder / name)
        except SafetensorError as error:
            raise ValueError(f"{folder / name}: {error}") from error
    return tensors


def write_folder(folder: str | Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Write config.json and model.safetensors; create the folder where it does not exist."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # safetensors refuses views that share memory, such as the parts of one larger matrix.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
