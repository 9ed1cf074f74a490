"""Open whatever serve.py is given as a task, and describe what it can be asked."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer

import modules
from engine.checkpoint.reading import load_task, read_checkpoint
from engine.checkpoint.sharded import is_sharded
from engine.errors import UserError
from preprocessing.model_folders import find_source, is_remote
from preprocessing.texts import with_truncation_and_padding
from serving.registry import MODEL
from serving.worker.messages import GUARD, INDEX

# Public methods of tasks that are served, and an example of their inputs for texts.
EXAMPLES: dict[str, list[Any]] = {
    "classify": ["a moving and surprisingly funny film"],
    "explain": ["a moving and surprisingly funny film"],
    "tag": ["Ada Lovelace was born in London."],
    "predict": ["a moving and surprisingly funny film"],
    "fill_mask": ["a moving and surprisingly funny [MASK]"],
    "generate": ["Once upon a time"],
    "translate": ["Ein Hund läuft über eine Wiese."],
    "embed": ["a moving and surprisingly funny film"],
    "nearest": [],
}


def open_source(source: str, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return a task, the documents of an index or a guard, on the CPU, and its description.

    Args:
        source: As of `open_task`, `index:FOLDER` or `guard:CHECKPOINT`.
        settings: Settings of a worker.

    Raises:
        UserError: If it cannot be read or cannot be served.
    """
    # Imported here: a model of MLflow brings the code that models need, and no more.
    if source.startswith(INDEX):
        from serving.worker.documents import open_documents

        documents = open_documents(source.removeprefix(INDEX), settings["answering"])
        return documents, documents.describe()
    if source.startswith(GUARD):
        from safety.guard import Guard

        guard = Guard(source.removeprefix(GUARD), settings["guard_threshold"])
        examples = {"judge": {"inputs": EXAMPLES["classify"]}}
        return guard, {"input": "text", "threshold": guard.threshold, "examples": examples}
    task = open_task(source, settings["runtime"], Path(settings["data_dir"]))
    return task, describe(task, source, settings["runtime"])


def open_task(source: str, runtime: str, data_dir: Path) -> Any:
    """Return a task in eval mode on the CPU.

    Args:
        source: A checkpoint, a Hugging Face folder, a GGUF file, `package:NAME`, the name of a
            model on the hub, a folder written by export.py --format mlflow, or for onnxruntime one
            written by export.py --format onnx.
        runtime: torch or onnxruntime.
        data_dir: Folder in which relative sources are found, too.

    Raises:
        UserError: If it cannot be read or cannot be served.
    """
    path = Path(source).expanduser()
    if (path / "MLmodel").is_file():
        path = mlflow_source(path)
        source = str(path)
    is_onnx = path.is_dir() and any(path.glob("*.onnx"))
    if is_onnx or runtime == "onnxruntime":
        if not is_onnx:
            raise UserError(
                f"{source} cannot be run by onnxruntime: it is not a folder written by export.py "
                "--format onnx."
            )
        from modules.inference.onnx import load_onnx

        return load_onnx(path)
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


def mlflow_source(folder: Path) -> Path:
    """Return the checkpoint or model folder in a model of MLflow.

    Raises:
        UserError: If it has none.
    """
    described = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    try:
        return folder / described["flavors"]["python_function"]["artifacts"][MODEL]["path"]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{folder} is a model of MLflow that export.py --format mlflow did not write."
        ) from error


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


def operations(task: Any) -> list[str]:
    """Return the names of the methods of a task that are served."""
    names = [name for name in EXAMPLES if callable(getattr(task, name, None))]
    return [name for name in names if name != "explain" or not takes_images(task)]


def takes_images(task: Any) -> bool:
    return getattr(task, "preprocessing", None) is not None


def source_tokenizer(task: Any) -> Tokenizer | None:
    """Return the tokenizer of the inputs of a task."""
    tokenizers = getattr(task, "tokenizers", None)
    found: Tokenizer | None = tokenizers[0] if tokenizers else getattr(task, "tokenizer", None)
    return found


def describe(task: Any, source: str, runtime: str) -> dict[str, Any]:
    """Return what clients may know about a model: no paths and no versions."""
    served = operations(task)
    images = [image_example(task.preprocessing)] if takes_images(task) else None
    examples = {name: {"inputs": images or EXAMPLES[name] or _words(task)} for name in served}
    net = getattr(task, "net", None)
    description: dict[str, Any] = {
        "task": type(task).__name__,
        "operations": served,
        "input": "image" if takes_images(task) else "text",
        "runtime": runtime,
        "network": type(net).__name__,
        "parameters": sum(p.numel() for p in task.parameters()),
        "context": getattr(net, "context", None),
        "labels": getattr(task, "class_names", None),
        "chat": bool(getattr(task, "chat_template", None)),
        "metrics": run_metrics(source),
        "examples": examples,
    }
    return description


def _words(task: Any) -> list[str]:
    return [word for word in task.words if word][:1]


def image_example(preprocessing: dict[str, Any]) -> dict[str, str]:
    """Return a vertical line on a black background as an input of a request."""
    from PIL import Image

    size = preprocessing["image_size"]
    image = Image.new("L", (size, size))
    image.paste(255, (size // 2, size // 8, size // 2 + max(1, size // 8), size - size // 8))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"image": base64.b64encode(buffer.getvalue()).decode()}


def run_metrics(source: str) -> dict[str, float] | None:
    """Return the final metrics of the run that a checkpoint belongs to."""
    results = Path(source).expanduser().parent.parent / "results.json"
    if not results.is_file():
        return None
    metrics: dict[str, float] = json.loads(results.read_text(encoding="utf-8"))["metrics"]
    return metrics


def best_device() -> str:
    """Return the fastest device of this machine."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
