"""Find and load the tokenizer of a checkpoint, a tokenizer.json or a pretrained model."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from datamodules.text.tokenizers import read_bert_folder
from engine.checkpoint.reading import read_checkpoint
from engine.checkpoint.sharded import is_sharded
from engine.errors import UserError
from preprocessing import chat
from preprocessing.model_folders import find_source, is_remote
from preprocessing.special_tokens import special_token_id


def load_or_build(
    name: str,
    kinds: Sequence[str],
    build: Callable[[Any], Tokenizer],
    data_dir: Path,
    required: Sequence[str] = (),
) -> Tokenizer:
    """Return the tokenizer that `--data.tokenizer` names.

    Args:
        name: One of `kinds`, or a checkpoint, a tokenizer.json or a Hugging Face folder; a relative
            path is looked up in the working directory, then in `data_dir`. Also `package:NAME` and
            hub names, as for `preprocessing.model_folders.find_source`.
        kinds: Tokenizers that `build` can make.
        build: Makes a tokenizer of that kind.
        data_dir: Folder of the data sets.
        required: Special tokens that a loaded tokenizer must have.

    Raises:
        UserError: If there is no such tokenizer, or it lacks a required token.
    """
    path = find_tokenizer(name, kinds, data_dir)
    if path is None:
        return build(name)
    tokenizer = load_tokenizer(path)
    missing = [token for token in required if special_token_id(tokenizer, token) is None]
    if missing:
        raise UserError(
            f"the tokenizer of {path} has no {' or '.join(missing)} token, which "
            f"these data need. Choose another file, or one of {', '.join(kinds)}."
        )
    return tokenizer


def find_tokenizer(name: str, kinds: Sequence[str], data_dir: Path) -> Path | None:
    """Return the path of a tokenizer, or None if the name is one of `kinds`.

    Raises:
        UserError: If it is neither.
    """
    if name in kinds:
        return None
    path = Path(name).expanduser()
    for candidate in (path, data_dir / path):
        if candidate.exists() and candidate.suffix != ".gguf":
            return candidate
    if is_remote(name) or path.suffix == ".gguf":
        try:
            return find_source(name, data_dir, weights=False)
        except ValueError as error:
            raise UserError(f"--data.tokenizer {name}: {error}.") from error
    raise UserError(
        f"unknown tokenizer {name!r}: choose one of {', '.join(kinds)}, or the path of a "
        f"checkpoint, a tokenizer.json or a Hugging Face folder, or package:NAME; {name} exists "
        f"neither in {Path.cwd()} nor in {data_dir.resolve()}."
    )


def load_tokenizer(path: Path, keys: Sequence[str] = ("tokenizer",)) -> Tokenizer:
    """Load a tokenizer, without truncation and padding.

    Args:
        path: Checkpoint, tokenizer.json or Hugging Face folder.
        keys: Hyper-parameters of a checkpoint that may hold the tokenizer; the first found counts.

    Raises:
        UserError: If there is no readable tokenizer.
    """
    if path.is_dir() and not is_sharded(path):
        if (path / "vocab.txt").is_file() and not (path / "tokenizer.json").is_file():
            return read_bert_folder(path)
        path /= "tokenizer.json"
    try:
        if path.suffix == ".json":
            text = path.read_text(encoding="utf-8")
        else:
            saved = _hyperparameters(path)
            text = next(saved[key] for key in keys if isinstance(saved.get(key), str))
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing more specific
        reason = str(error).splitlines()[0] if str(error) else "none is saved there"
        raise UserError(
            f"cannot read a tokenizer from {path} ({reason}). Name the checkpoint "
            "of a text model, a tokenizer.json or a Hugging Face folder."
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def read_chat_template(path: Path) -> str | None:
    """Return the chat template, with its special tokens, of a Hugging Face folder or a checkpoint.

    Raises:
        UserError: If the folder's files are not valid.
    """
    if not path.is_dir() or is_sharded(path):
        return None if path.suffix == ".json" else _hyperparameters(path).get("chat_template")
    try:
        return chat.read_chat_template(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the chat template of {path}: {error}.") from error


def _hyperparameters(path: Path) -> dict[str, Any]:
    if is_sharded(path):
        return read_checkpoint(path)["hyper_parameters"]
    # Memory-mapped: the weights are not read.
    content = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    return content["hyper_parameters"]
