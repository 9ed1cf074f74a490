"""Write a checkpoint in formats of other programs."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.checkpoint.reading import load_task, read_checkpoint
from engine.checkpoint.sharded import KEYS, as_single_file
from engine.errors import UserError
from modules.classifier import Classifier
from modules.inference.pretrained import open_language_model, save_tokenizer
from modules.masked_language_model import MaskedLanguageModel
from modules.nets.bert import BertClassifier, BertMLM
from modules.nets.gpt import GPT
from modules.nets.huggingface.bert import save_bert
from modules.nets.huggingface.gpt import save_gpt
from modules.word_vectors import WordVectors


def export(checkpoint: Path, format: str, folder: Path) -> list[Path]:
    """Write a checkpoint in another format and return the files.

    Args:
        checkpoint: A .ckpt file, or the folder of a sharded checkpoint.
        format: Key of `FORMATS`.
        folder: A folder that is empty or does not exist.

    Raises:
        UserError: If the folder is in use, or the checkpoint does not fit the format.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"--output: {folder} exists and is not an empty folder; choose a new folder, so that "
            "nothing is overwritten."
        )
    try:
        FORMATS[format](checkpoint, folder)
    except OSError as error:
        raise UserError(f"--output: cannot write to {folder}: {error}") from error
    return sorted(folder.iterdir())


def export_safetensors(checkpoint: Path, folder: Path) -> None:
    """Write the weights of the network to `model.safetensors`, the hyper-parameters as metadata."""
    content = read_checkpoint(checkpoint)
    weights: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}  # second name of a shared weight → first name
    names: dict[tuple, str] = {}
    for name, tensor in content["state_dict"].items():
        if not name.startswith("net."):  # buffers of the task
            continue
        name = name.removeprefix("net.")
        storage = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        first = names.setdefault(storage, name) if tensor.numel() else name
        if first != name:
            aliases[name] = first
        else:
            weights[name] = tensor.clone(memory_format=torch.contiguous_format)
    if not weights:
        raise UserError(
            f"{checkpoint} contains no network: no key of its state_dict starts with net."
        )
    hyper_parameters = json.dumps(content.get("hyper_parameters", {}), ensure_ascii=False)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        weights,
        folder / "model.safetensors",
        metadata={"format": "pt", "hyper_parameters": hyper_parameters} | aliases,
    )


def export_checkpoint(checkpoint: Path, folder: Path) -> None:
    """Write weights and hyper-parameters to `model.ckpt`, without the state of the training."""
    content = read_checkpoint(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({key: content[key] for key in KEYS if key in content}, folder / "model.ckpt")


def export_huggingface(checkpoint: Path, folder: Path) -> None:
    """Write a GPT or BERT and its tokenizer as a Hugging Face folder."""
    with as_single_file(checkpoint) as file:
        task = read_checkpoint(file).get("hyper_parameters", {}).get("_class_path", "")
        kind = BERT_TASKS.get(task.rpartition(".")[2])
        model = load_task(file, kind, "a BERT's config") if kind else open_language_model(file)
    net: Any = model.net
    try:
        if isinstance(net, GPT):
            assert model.tokenizer is not None  # checked by open_language_model
            save_gpt(net, folder)
            save_tokenizer(model.tokenizer, folder, net.context)
            return
        if isinstance(net, BertMLM | BertClassifier):
            if model.tokenizer is None:
                raise UserError(
                    f"{checkpoint} contains no tokenizer, which a Hugging Face folder requires; "
                    f"use "
                    "--format safetensors."
                )
            save_bert(net, folder, getattr(model, "class_names", None))
            save_tokenizer(model.tokenizer, folder, net.context)
            return
    except ValueError as error:
        raise UserError(f"{error}; use --format safetensors.") from error
    raise UserError(
        f"{checkpoint} contains the network {type(net).__name__}, but --format huggingface "
        f"supports only "
        "modules.nets.GPT, BertMLM and BertClassifier; use --format safetensors."
    )


def export_word2vec(checkpoint: Path, folder: Path) -> None:
    """Write word vectors in the text format of word2vec, most frequent word first."""
    with as_single_file(checkpoint) as file:
        task = load_task(file, WordVectors, "a config of word vectors, configs/imdb/skip_gram.yaml")
    if task.tokenizer is None:
        raise UserError(
            f"{checkpoint} contains no vocabulary, since it was trained without `tokenizer`; use "
            f"--format "
            "safetensors."
        )
    vectors = task.net.vectors().float()  # type: ignore[operator]
    rows = [(word, row) for word, row in zip(task.words, vectors.tolist(), strict=True) if word]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "vectors.txt").open("w", encoding="utf-8") as file:
        file.write(f"{len(rows)} {vectors.shape[1]}\n")
        for word, row in rows:  # nine digits identify a float32
            file.write(f"{word} {' '.join(format(number, '.9g') for number in row)}\n")


# Tasks whose network may be a BERT; all others are language models.
BERT_TASKS: dict[str, Any] = {
    "Classifier": Classifier,
    "MaskedLanguageModel": MaskedLanguageModel,
}
FORMATS = {
    "safetensors": export_safetensors,
    "huggingface": export_huggingface,
    "word2vec": export_word2vec,
    "checkpoint": export_checkpoint,
}
