"""Open checkpoints and model folders as tasks that torch runs."""

import json
from pathlib import Path
from typing import Any

import torch

import modules
from engine.checkpoint.reading import load_task, read_checkpoint
from engine.checkpoint.sharded import is_sharded
from engine.errors import UserError
from engine.process import prepare_process
from preprocessing.model_folders import find_source, is_remote
from preprocessing.texts import with_truncation_and_padding
from serving.worker.loading import operations


def prepare_torch(device: str, threads: int | None) -> torch.device:
    """Apply the settings of the process and return the device of the models.

    Args:
        device: Such as cpu or cuda:1; `auto`: the fastest one.
        threads: Number of CPU threads.
    """
    prepare_process()
    if threads:
        torch.set_num_threads(threads)
    return torch.device(best_device() if device == "auto" else device)


def open_trained(source: str, data_dir: Path) -> Any:
    """Return a task in eval mode on the CPU.

    Args:
        source: See `serving.worker.loading.open_task`.
        data_dir: Folder in which relative sources are found, too.

    Raises:
        UserError: If it cannot be read or cannot be served.
    """
    path = Path(source).expanduser()
    if path.is_file() and path.suffix != ".gguf":
        return _open_checkpoint(path)
    if path.is_dir() and is_sharded(path):
        raise UserError(
            f"{source} is a sharded checkpoint; convert it into a single file with python "
            f"export.py --checkpoint {source} --format checkpoint --output FOLDER."
        )
    if not path.exists() and not is_remote(source) and not (data_dir / path).exists():
        raise UserError(f"there is no model at {source}.")
    try:
        folder = find_source(source, data_dir)
    except ValueError as error:
        raise UserError(f"{error}.") from error
    return _open_folder(folder)


def _open_checkpoint(path: Path) -> Any:
    saved = read_checkpoint(path).get("hyper_parameters", {})
    name = saved.get("_class_path", "").rpartition(".")[2]
    if name not in modules.__all__:
        raise UserError(
            f"{path} holds {name or 'an unnamed task'}, which cannot be served: expected a task of "
            f"{', '.join(modules.__all__)}."
        )
    task = load_task(path, getattr(modules, name), "train.py")
    needed = {"tokenizer", "preprocessing", "tokenizers"} & vars(task).keys()
    if needed and all(getattr(task, name) is None for name in needed):
        raise UserError(
            f"{path} cannot be served: it was trained without `tokenizer` or `preprocessing`, so "
            "it takes no raw inputs."
        )
    if not operations(task):
        raise UserError(f"{path} cannot be served: {name} has no method for raw inputs.")
    return task


def _open_folder(folder: Path) -> Any:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    architecture = (config.get("architectures") or [""])[0]
    if architecture.endswith("ForSequenceClassification"):
        return _open_classifier(folder, config)
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        from modules.inference.pretrained import open_language_model

        return open_language_model(folder)
    return modules.SentenceEncoder.from_pretrained(str(folder))


def _open_classifier(folder: Path, config: dict[str, Any]) -> Any:
    from modules.inference.pretrained import read_tokenizer
    from modules.nets import PretrainedClassifier

    labels = config.get("id2label") or {"0": "0", "1": "1"}
    names = [labels[key] for key in sorted(labels, key=int)]
    try:
        net = PretrainedClassifier(len(names), str(folder))
    except ValueError as error:
        raise UserError(f"{error}.") from error
    tokenizer = with_truncation_and_padding(read_tokenizer(folder), net.context or 512)
    multi_label = config.get("problem_type") == "multi_label_classification"
    kind = modules.MultiLabelClassifier if multi_label else modules.Classifier
    return kind(net, len(names), class_names=names, tokenizer=tokenizer).eval()


def best_device() -> str:
    """Return the fastest device of this machine."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
