"""Write a checkpoint in formats of other programs."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import modules
from engine.checkpoint.reading import load_task, read_checkpoint
from engine.checkpoint.sharded import KEYS, as_single_file
from engine.errors import UserError
from modules.adapters.layers import adapted_layers, remove_adapter
from modules.adapters.task import AdapterTask
from modules.inference.model_card import write_model_card
from modules.inference.pretrained import open_language_model, save_tokenizer
from modules.inference.tracing import export_onnx, export_torch_program
from modules.nets.bert import BertClassifier, BertMLM
from modules.nets.gpt import GPT
from modules.nets.huggingface.bert import save_bert
from modules.nets.huggingface.gpt import save_gpt
from modules.nets.huggingface.pretrained import Pretrained, save_pretrained
from modules.word_vectors import WordVectors


def export(
    checkpoint: Path,
    format: str,
    folder: Path,
    merge: bool = False,
    quantize: bool = False,
    write: Callable[[Path, Path], Any] | None = None,
) -> list[Path]:
    """Write a checkpoint in another format and return the files.

    Args:
        checkpoint: A .ckpt file, or the folder of a sharded checkpoint; for onnx and torch_export
            also a model folder or `package:NAME`.
        format: Key of `FORMATS`, or the name of a format that `write` writes.
        folder: A folder that is empty or does not exist; after an error it is removed.
        merge: Merge the adapter of the checkpoint into its base.
        quantize: Quantize the weights of linear layers to int8; for onnx.
        write: Function that writes a checkpoint to a folder, instead of that of the format.

    Raises:
        UserError: If the folder is in use, or the checkpoint does not fit the format.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"--output: {folder} exists and is not an empty folder; choose a new folder, so that "
            "nothing is overwritten."
        )
    if quantize and format != "onnx":
        raise UserError(f"--quantize needs --format onnx, not {format}.")
    write = partial(export_onnx, quantize=True) if quantize else write or FORMATS[format]
    try:
        with merged_adapter(checkpoint) if merge else nullcontext(checkpoint) as path:
            write(path, folder)
        if format == "huggingface":
            write_model_card(checkpoint, folder)
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except OSError as error:
        raise UserError(f"--output: cannot write to {folder}: {error}") from error
    return sorted(folder.iterdir())


def load_adapter_task(checkpoint: Path) -> AdapterTask:
    """Rebuild a task with an adapter, whatever its class.

    Raises:
        UserError: If the checkpoint has no adapter, or its base is missing or has changed.
    """
    saved = read_checkpoint(checkpoint).get("hyper_parameters", {})
    kind = getattr(modules, str(saved.get("_class_path", "")).rpartition(".")[2], None)
    if not saved.get("adapter") or kind is None:
        raise UserError(
            f"{checkpoint} has no adapter, which --merge and --format peft need: leave out "
            "--merge, or choose another format."
        )
    task: AdapterTask = load_task(checkpoint, kind, "an overlay of configs/adapter")
    return task


@contextmanager
def merged_adapter(checkpoint: Path) -> Iterator[Path]:
    """Yield the path of a temporary checkpoint with the adapter merged into its base."""
    task = load_adapter_task(checkpoint)
    content = read_checkpoint(checkpoint)
    remove_adapter(task.net, merge=True)
    saved = content["hyper_parameters"]
    del saved["adapter"]
    for name in getattr(task.net, "not_in_checkpoints", ()):
        saved["net"].get("init_args", {}).pop(name, None)
    state = {name: weight.detach() for name, weight in task.state_dict().items()}
    kept = content.keys() & set(KEYS) - {"base"}
    complete = {key: content[key] for key in kept} | {"state_dict": state}
    with TemporaryDirectory() as temporary:
        path = Path(temporary, "model.ckpt")
        torch.save(complete, path)
        yield path


def export_peft(checkpoint: Path, folder: Path) -> None:
    """Write an adapter as a folder of peft: adapter_config.json and adapter_model.safetensors."""
    task = load_adapter_task(checkpoint)
    model: Any = getattr(task.net, "model", None)
    names = [] if model is None else list(adapted_layers(model))
    if not names or not hasattr(model, "save_pretrained"):
        raise UserError(
            f"{checkpoint}: --format peft needs LoRA, DoRA or IA3 on a network of transformers, "
            f"such as modules.nets.PretrainedClassifier, not {type(task.adapter).__name__} on "
            f"{type(task.net).__name__}; use --format safetensors --merge."
        )
    state = model.state_dict()
    adapter = {name for name in state if ".default" in name}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    config: Any = task.net.peft_config["default"]  # type: ignore[index]
    config.target_modules = names
    config.modules_to_save = sorted({n.rpartition(".")[0] for n in trained - adapter}) or None
    config.base_model_name_or_path = getattr(task.net, "pretrained", None)
    config.inference_mode = True
    for suffix, kind in PEFT_TASKS.items():
        if type(model).__name__.endswith(suffix):
            config.task_type = kind
    if getattr(config, "feedforward_modules", None):  # IA3
        config.feedforward_modules = [
            name for name, layer in adapted_layers(model).items() if layer.is_feedforward
        ]
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    weights = {
        f"base_model.model.{name.replace('.default', '')}": state[name].contiguous()
        for name in adapter | trained
    }
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


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
    kept = {key: canonical(content[key]) for key in KEYS if key in content}
    torch.save(kept, folder / "model.ckpt")


def canonical(value: Any) -> Any:
    """Return plain values such that equal ones are saved as equal bytes.

    Pickle refers to a string that it has saved already if it is the same object, not an equal one,
    and arguments that are linked from the data are in no fixed order.
    """
    if isinstance(value, str):
        return sys.intern(value)
    if type(value) in (list, tuple):
        return type(value)(map(canonical, value))
    if type(value) is dict:
        return {canonical(key): canonical(value[key]) for key in sorted(value, key=str)}
    return value


def export_huggingface(checkpoint: Path, folder: Path) -> None:
    """Write a GPT, a BERT or a network of transformers as a Hugging Face folder."""
    with as_single_file(checkpoint) as file:
        saved = read_checkpoint(file).get("hyper_parameters", {})
        if saved.get("adapter"):
            raise UserError(
                f"{checkpoint} holds an adapter: add --merge to write the network with the adapter "
                "merged into it."
            )
        task = str(saved.get("_class_path", "")).rpartition(".")[2]
        if task in TEXT_TASKS:
            model: Any = load_task(file, getattr(modules, task), "a config of texts")
        else:
            model = open_language_model(file)
    net: Any = model.net
    try:
        if isinstance(net, GPT):
            assert model.tokenizer is not None  # checked by open_language_model
            save_gpt(net, folder)
            save_tokenizer(model.tokenizer, folder, net.context)
            return
        if isinstance(net, BertMLM | BertClassifier | Pretrained):
            if model.tokenizer is None:
                raise UserError(
                    f"{checkpoint} contains no tokenizer, which a Hugging Face folder requires; "
                    "use --format safetensors."
                )
            class_names = getattr(model, "class_names", None)
            if isinstance(net, Pretrained):
                save_pretrained(net, folder, class_names, TEXT_TASKS.get(task))
            else:
                save_bert(net, folder, class_names)
            save_tokenizer(model.tokenizer, folder, net.context)
            if getattr(model, "chat_template", None):
                (folder / "chat_template.jinja").write_text(model.chat_template, encoding="utf-8")
            return
    except ValueError as error:
        raise UserError(f"{error}; use --format safetensors.") from error
    raise UserError(
        f"{checkpoint} contains the network {type(net).__name__}, but --format huggingface "
        "supports only modules.nets.GPT, BertMLM, BertClassifier and Pretrained…; use --format "
        "safetensors."
    )


def export_word2vec(checkpoint: Path, folder: Path) -> None:
    """Write word vectors in the text format of word2vec, most frequent word first."""
    with as_single_file(checkpoint) as file:
        task = load_task(file, WordVectors, "a config of word vectors, configs/imdb/skip_gram.yaml")
    if task.tokenizer is None:
        raise UserError(
            f"{checkpoint} contains no vocabulary, since it was trained without `tokenizer`; use "
            "--format safetensors."
        )
    vectors = task.net.vectors().float()  # type: ignore[operator]
    rows = [(word, row) for word, row in zip(task.words, vectors.tolist(), strict=True) if word]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "vectors.txt").open("w", encoding="utf-8") as file:
        file.write(f"{len(rows)} {vectors.shape[1]}\n")
        for word, row in rows:  # nine digits identify a float32
            file.write(f"{word} {' '.join(format(number, '.9g') for number in row)}\n")


PEFT_TASKS = {  # ending of a class of transformers → task type of peft
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForCausalLM": "CAUSAL_LM",
}
TEXT_TASKS = {  # tasks of texts but language models → problem type of transformers
    "Classifier": "single_label_classification",
    "MultiLabelClassifier": "multi_label_classification",
    "Regressor": "regression",
    "TokenClassifier": None,
    "MaskedLanguageModel": None,
}
FORMATS = {
    "safetensors": export_safetensors,
    "huggingface": export_huggingface,
    "word2vec": export_word2vec,
    "checkpoint": export_checkpoint,
    "peft": export_peft,
    "onnx": export_onnx,
    "torch_export": export_torch_program,
}
