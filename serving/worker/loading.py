"""Open whatever serve.py is given as a task, and describe what it can be asked."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import yaml
from tokenizers import Tokenizer

from engine.errors import UserError
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
    runtime, threads = settings["runtime"], settings["threads"]
    task = open_task(source, runtime, Path(settings["data_dir"]), threads)
    return task, describe(task, source, runtime)


def open_task(source: str, runtime: str, data_dir: Path, threads: int | None = None) -> Any:
    """Return a task in eval mode on the CPU.

    Only tasks that torch runs import it.

    Args:
        source: A checkpoint, a Hugging Face folder, a GGUF file, `package:NAME`, the name of a
            model on the hub, a folder written by export.py --format mlflow, or for onnxruntime one
            written by export.py --format onnx.
        runtime: torch or onnxruntime.
        data_dir: Folder in which relative sources are found, too.
        threads: Number of CPU threads of onnxruntime.

    Raises:
        UserError: If it cannot be read or cannot be served, or a package is missing.
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
        from modules.inference.onnx_runtime import open_onnx

        return open_onnx(path, threads)
    try:
        from serving.worker.trained import open_trained
    except ImportError as error:
        raise UserError(
            f"{source} requires {error.name}, which is not installed: pip install stepladder. "
            "Without it, folders written by export.py --format onnx are served."
        ) from error
    return open_trained(source, data_dir)


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
    parameters = task.parameters() if hasattr(task, "parameters") else ()  # not of onnxruntime
    description: dict[str, Any] = {
        "task": type(task).__name__,
        "operations": served,
        "input": "image" if takes_images(task) else "text",
        "runtime": getattr(task, "runtime", runtime),
        "network": type(net).__name__,
        "parameters": sum(p.numel() for p in parameters),
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
