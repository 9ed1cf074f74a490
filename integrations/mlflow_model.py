"""Models in the format of MLflow, for any task: code, weights, signature and an input example.

    python export.py --checkpoint runs/…/best.ckpt --format mlflow --output FOLDER
    mlflow models serve --model-uri FOLDER --env-manager local

A model holds the checkpoint or model folder itself, the code that runs it and the versions of the
packages that it needs, and no pickled object. Inputs are a table: `text` and, for pairs,
`text_pair`; or `image`, the bytes of an image file. The parameter `operation` is a method of the
task, and `options` its arguments as JSON. Predictions have the form of serve.py, and are equal to
its own.
"""

import base64
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import pyfunc
from mlflow.models import ModelSignature, infer_signature
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types.schema import ColSpec, Schema
from pydantic import ValidationError

from engine.errors import UserError
from preprocessing.model_folders import find_source, is_remote
from serving.registry import MODEL
from serving.routes.operations import OPERATIONS, generation_options
from serving.settings import Settings
from serving.worker.loading import describe, open_task
from serving.worker.local import answer
from serving.worker.requests import Model

CODE = Path(__file__).with_name("mlflow_code.py")
ROOT = Path(__file__).parent.parent
PARTS = ("engine", "integrations", "modules", "preprocessing", "serving")  # that a model needs
PACKAGES = (
    *("fastapi", "jsonargparse", "lightning", "mlflow", "peft", "prometheus-client", "pydantic"),
    *("pydantic-settings", "python-multipart", "safetensors", "tokenizers", "torch"),
    *("torchmetrics", "torchvision", "transformers"),
)
PAIRS = ("classify", "predict")  # operations that also take pairs of texts
SETTINGS = ("batch_tokens", "batch_size", "slots", "max_pixels")


class TaskModel(PythonModel):
    """A task as a model of MLflow, on the CPU."""

    def load_context(self, context: PythonModelContext | None) -> None:
        assert context is not None
        self.open(context.artifacts[MODEL])

    def open(self, source: str) -> "TaskModel":
        """Load a checkpoint or a model folder.

        Raises:
            UserError: If it cannot be read, or has no method for raw inputs.
        """
        self.settings = Settings.model_construct(checkpoint=[source])
        task = open_task(source, "torch", self.settings.data_dir)
        self.model = Model(source, task, describe(task, source, "torch"))
        return self

    def predict(
        self,
        context: PythonModelContext | None,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> list[Any]:
        """Return the predictions, one per row.

        Args:
            context: Not used: the model is loaded already.
            model_input: `text` and optionally `text_pair`, or `image` as bytes.
            params: `operation`, by default the first of the task, and `options` as JSON.

        Raises:
            UserError: If an input, the operation or an option is not valid.
        """
        given = {"operation": "", "options": ""} | (params or {})
        served = self.model.description["operations"]
        name = given["operation"] or served[0]
        if name not in served:
            raise UserError(f"operation: the model cannot {name}; it can: {', '.join(served)}.")
        inputs, files = _inputs(model_input)
        operation = OPERATIONS[name]
        try:
            checked = inputs or [{"image": base64.b64encode(file).decode()} for file in files]
            body = operation.body(inputs=checked, **json.loads(given["options"] or "{}"))
        except (ValidationError, ValueError, TypeError) as error:
            raise UserError(f"options: {error}") from error
        options = body.model_dump(exclude={"inputs"}, exclude_none=True)
        if name == "generate":
            options = generation_options(options, self.settings)
        limits = {limit: getattr(self.settings, limit) for limit in SETTINGS}
        inputs = inputs or [{"image": number} for number in range(len(files))]
        results = answer(self.model, name, inputs, options, files, limits)
        (predictions,) = operation.convert(results).values()
        return list(predictions)

    def example(self) -> pd.DataFrame:
        """Return an input example."""
        first = next(iter(self.model.description["examples"].values()))["inputs"]
        if self.model.description["input"] == "image":
            return pd.DataFrame({"image": [base64.b64decode(one["image"]) for one in first]})
        return pd.DataFrame({"text": first})

    def signature(self) -> ModelSignature:
        """Return the signature: columns of the inputs, form of the predictions, parameters."""
        example, first = self.example(), self.model.description["operations"][0]
        short = {"options": '{"max_new_tokens": 2}'} if first == "generate" else {}
        outputs = self.predict(None, example, short)
        found = infer_signature(example, outputs, {"operation": first, "options": ""})
        columns = [*found.inputs.inputs]
        if "text" in example and first in PAIRS:
            columns.append(ColSpec("string", "text_pair", required=False))
        return ModelSignature(Schema(columns), found.outputs, found.params)


def _inputs(table: pd.DataFrame) -> tuple[list[Any], list[bytes]]:
    """Return texts and pairs of texts, or image files."""
    if "image" in table:
        return [], [*table["image"]]
    if "text" not in table:
        raise UserError(f"expected a column text or image, got {', '.join(map(str, table))}.")
    texts = [*table["text"]]
    if "text_pair" not in table:
        return texts, []
    rows = zip(texts, table["text_pair"], strict=True)
    return [[one, two] if isinstance(two, str) else one for one, two in rows], []


def arguments_of(source: str | Path) -> dict[str, Any]:
    """Return the arguments of mlflow.pyfunc's save_model and log_model for a model.

    Args:
        source: A checkpoint, a model folder, `package:NAME`, or a folder written by export.py
            --format onnx.

    Raises:
        UserError: If it cannot be read, or has no method for raw inputs.
    """
    model = TaskModel().open(str(source))
    path = find_source(str(source)) if is_remote(str(source)) else Path(source).expanduser()
    served = model.model.description
    return {
        "python_model": str(CODE),
        "artifacts": {MODEL: str(path.resolve())},
        "signature": model.signature(),
        "input_example": model.example(),
        "code_paths": [str(ROOT / part) for part in PARTS],
        "pip_requirements": [f"{name}=={version(name).partition('+')[0]}" for name in PACKAGES],
        "metadata": {key: served[key] for key in ("task", "network", "parameters", "operations")},
    }


def save_model(source: str | Path, folder: Path) -> None:
    """Write a model to a folder that is empty or does not exist.

    Args:
        source: See `arguments_of`.
        folder: The folder.

    Raises:
        UserError: If the source cannot be read, or has no method for raw inputs.
    """
    pyfunc.save_model(folder, **arguments_of(source))
