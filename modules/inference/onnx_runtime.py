"""Tasks that onnxruntime runs, from a folder written by export.py --format onnx, without torch."""

import importlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engine.errors import UserError
from modules.inference.raw_methods import (
    ClassifiesSamples,
    LabelsSamples,
    TagsTexts,
    batches_by_length,
)
from modules.inference.raw_samples import check_samples
from preprocessing.image_arrays import images_to_arrays
from preprocessing.texts import texts_to_arrays, words_to_arrays

MODEL, DESCRIPTION = "model.onnx", "model.json"
Array = NDArray[np.float32]
Inputs = NDArray[Any] | dict[str, NDArray[Any]]


def import_onnxruntime() -> Any:
    """Return the module onnxruntime.

    Raises:
        UserError: If it is not installed.
    """
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise UserError(
            f"ONNX models need the packages of the extra `onnx`, and {error.name} is missing: "
            "pip install 'stepladder[onnx]'."
        ) from error


class OnnxSession:
    """A network that onnxruntime runs on the CPU.

    Args:
        path: The file model.onnx.
        threads: Number of CPU threads; OMP_NUM_THREADS or those of onnxruntime by default.
        context: Maximum number of tokens; None if it is unlimited, or for images.

    Raises:
        OSError: If the file cannot be read.
    """

    def __init__(
        self, path: str | Path, threads: int | None = None, context: int | None = None
    ) -> None:
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or int(os.environ.get("OMP_NUM_THREADS") or 0)
        options.inter_op_num_threads = 1
        try:
            self._session = runtime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises classes of its own
            raise OSError(f"{path} is not an ONNX model, or is damaged: {error}") from error
        self.context = context
        self.inputs = [tensor.name for tensor in self._session.get_inputs()]

    def run(self, inputs: Inputs) -> NDArray[Any]:
        """Return the output for images or tokens, or for `input_ids` and `attention_mask`."""
        given = dict(inputs) if isinstance(inputs, dict) else {self.inputs[0]: inputs}
        if "token_type_ids" in self.inputs and "token_type_ids" not in given:
            given["token_type_ids"] = np.zeros_like(given["input_ids"])
        feed = {name: given[name] for name in self.inputs}
        feed = {
            name: array if array.dtype.kind == "f" else array.astype(np.int64, copy=False)
            for name, array in feed.items()
        }
        output: NDArray[Any] = self._session.run(None, feed)[0]
        return output


def read_description(folder: Path) -> dict[str, Any]:
    """Return the content of model.json: `task`, `arguments` and `net`.

    Raises:
        OSError, ValueError: If it is missing or is not JSON.
    """
    described: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    return described


class OnnxTask:
    """What the tasks have in common.

    Args:
        net: The network.
        arguments: Arguments of the task of the same name in modules/.
    """

    runtime = "onnxruntime"

    def __init__(self, net: OnnxSession, arguments: dict[str, Any]) -> None:
        self.net = net
        self.preprocessing: dict[str, Any] | None = arguments.get("preprocessing")
        tokenizer = arguments.get("tokenizer")
        self.tokenizer = None if tokenizer is None else Tokenizer.from_str(tokenizer)

    def outputs(self, samples: Any) -> Array:
        """Return the outputs of the network for raw samples: image files, PIL images or texts.

        Raises:
            UserError: If a sample cannot be read or is of the wrong kind.
        """
        checked = check_samples(samples, self.preprocessing, self.tokenizer)
        if self.tokenizer is not None:
            return self.net.run(texts_to_arrays(checked, self.tokenizer))
        assert self.preprocessing is not None  # checked
        return self.net.run(images_to_arrays(checked, self.preprocessing))


class Classifier(ClassifiesSamples, OnnxTask):
    """See modules.Classifier."""

    def __init__(self, net: OnnxSession, arguments: dict[str, Any]) -> None:
        super().__init__(net, arguments)
        count = arguments.get("num_classes", 10)
        self.class_names = arguments.get("class_names") or [str(index) for index in range(count)]

    def probabilities(self, samples: Any) -> Array:
        """Return the probabilities of all classes for raw images or texts, (B, num_classes)."""
        return softmax(self.outputs(samples))


class MultiLabelClassifier(LabelsSamples, Classifier):
    """See modules.MultiLabelClassifier."""

    def probabilities(self, samples: Any) -> Array:
        """Return the probability of each class for raw images or texts, (B, num_classes)."""
        logits = self.outputs(samples)
        return np.exp(-np.logaddexp(0, -logits)).astype(np.float32)  # without overflow


class Regressor(OnnxTask):
    """See modules.Regressor."""

    def __init__(self, net: OnnxSession, arguments: dict[str, Any]) -> None:
        super().__init__(net, arguments)
        self.scale = arguments.get("target_mean", 0.0), arguments.get("target_std", 1.0)

    def predict(self, samples: Any) -> list[float]:
        """Predict a number for each raw image or text."""
        mean, std = map(np.float32, self.scale)
        values: list[float] = (self.outputs(samples).flatten() * std + mean).tolist()
        return values


class TokenClassifier(TagsTexts, OnnxTask):
    """See modules.TokenClassifier."""

    def __init__(self, net: OnnxSession, arguments: dict[str, Any]) -> None:
        super().__init__(net, arguments)
        self.class_names = arguments["class_names"]

    def tag_probabilities(self, words: list[list[str]]) -> tuple[Array, list[dict[int, int]]]:
        assert self.tokenizer is not None  # checked
        inputs, firsts = words_to_arrays(words, self.tokenizer)
        return softmax(self.net.run(inputs)), firsts


class SentenceEncoder(OnnxTask):
    """See modules.SentenceEncoder."""

    def __init__(self, net: OnnxSession, arguments: dict[str, Any]) -> None:
        super().__init__(net, arguments)
        self.pooling = arguments.get("pooling", "mean")
        self.normalize = arguments.get("normalize", True)

    def embed(
        self, texts: str | Sequence[str], batch_size: int = 64, dim: int | None = None
    ) -> Array:
        """Return one vector per raw text, (N, D), or their first `dim` numbers.

        Raises:
            UserError: If there is no text, or the task has no tokenizer.
        """
        texts = check_samples(texts, None, self.tokenizer)
        assert self.tokenizer is not None  # checked
        vectors: list[Any] = [None] * len(texts)
        for rows in batches_by_length(texts, batch_size):
            inputs = texts_to_arrays([texts[row] for row in rows], self.tokenizer)
            hidden = self.net.run(inputs)  # (B, T, D)
            for row, vector in zip(rows, self._pool(hidden, inputs["attention_mask"]), strict=True):
                vectors[row] = vector
        return self._normalize(np.stack(vectors)[:, :dim])

    def _pool(self, hidden: Array, mask: NDArray[np.int64]) -> Array:
        present = mask[:, :, None].astype(np.float32)  # (B, T, 1)
        if self.pooling == "cls":
            vectors = hidden[:, 0]  # (B, D)
        elif self.pooling == "mean":
            vectors = (hidden * present).sum(axis=1) / present.sum(axis=1)
        else:
            vectors = np.where(present > 0, hidden, -np.inf).max(axis=1)
        return self._normalize(vectors)

    def _normalize(self, vectors: Array) -> Array:
        if not self.normalize:
            return vectors
        norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
        return vectors / np.maximum(norms, 1e-12)  # as torch.nn.functional.normalize


def softmax(logits: Array) -> Array:
    """Return the softmax over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


TASKS = (Classifier, MultiLabelClassifier, Regressor, TokenClassifier, SentenceEncoder)


def open_onnx(folder: str | Path, threads: int | None = None) -> Any:
    """Return the task of a folder written by export.py --format onnx, without torch if possible.

    Its methods for raw inputs, such as `classify` and `embed`, are those of the task in modules/,
    with arrays in place of tensors. Texts are generated by torch: the language models are those of
    `modules.inference.onnx.load_onnx`.

    Args:
        folder: The folder.
        threads: Number of CPU threads; OMP_NUM_THREADS or those of onnxruntime by default.

    Raises:
        UserError: If the folder was not written by export.py or is damaged, or a package is
            missing.
    """
    folder = Path(folder)
    import_onnxruntime()
    try:
        described = read_description(folder)
        found = [kind for kind in TASKS if kind.__name__ == described["task"]]
        if found:
            net = OnnxSession(folder / MODEL, threads, described["net"].get("context"))
            return found[0](net, described["arguments"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise damaged(folder, error) from error
    try:
        from modules.inference.onnx import load_onnx
    except ImportError as error:
        raise UserError(
            f"{folder} holds a {described['task']}, which needs torch to generate texts: pip "
            "install stepladder."
        ) from error
    return load_onnx(folder, threads)


def damaged(folder: Path, error: Exception) -> UserError:
    return UserError(
        f"{folder} is not a folder written by export.py --format onnx, or is damaged: {error}."
    )
