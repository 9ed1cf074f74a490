"""Run the network of a task by onnxruntime, from a folder written by export.py --format onnx."""

import importlib
import json
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

import modules
from engine.errors import UserError

MODEL, DESCRIPTION = "model.onnx", "model.json"


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


class OnnxNet(nn.Module):
    """A network that onnxruntime runs on the CPU.

    Args:
        path: The file model.onnx.
        threads: Number of CPU threads; those of torch by default.
        context: Maximum number of tokens; None if it is unlimited, or for images.
        vocab_size: Number of tokens; None for images.

    Raises:
        OSError: If the file cannot be read.
    """

    def __init__(
        self,
        path: str,
        threads: int | None = None,
        context: int | None = None,
        vocab_size: int | None = None,
    ) -> None:
        super().__init__()
        runtime = import_onnxruntime()
        self.path = path
        self.threads = threads
        self.context = context
        self.vocab_size = vocab_size
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        try:
            self.session = runtime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises classes of its own
            raise OSError(f"{path} is not an ONNX model, or is damaged: {error}") from error
        self.inputs = [tensor.name for tensor in self.session.get_inputs()]

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        """Return the output for images or tokens, or for `input_ids` and `attention_mask`."""
        given = {self.inputs[0]: inputs} if isinstance(inputs, Tensor) else dict(inputs)
        if "token_type_ids" in self.inputs and "token_type_ids" not in given:
            given["token_type_ids"] = torch.zeros_like(given["input_ids"])
        feed = {}
        for name in self.inputs:
            tensor = given[name].cpu()
            feed[name] = (tensor if tensor.is_floating_point() else tensor.long()).numpy()
        (output,) = self.session.run(None, feed)
        return torch.from_numpy(output)


class OnnxLanguageNet(OnnxNet):
    """A language model: its state is the tokens so far, which are processed again at each step."""

    def init_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, 0, dtype=torch.int64)

    def forward(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Any]:  # type: ignore[override]
        """Return logits (B, T, V) of tokens (B, T) that follow those of the state, and a state."""
        known = tokens if state is None else torch.cat([state, tokens], dim=1)  # (B, S + T)
        logits = super().forward(known)[:, -tokens.shape[1] :]
        return logits, None if state is None else known


def load_onnx(folder: str | Path, threads: int | None = None) -> L.LightningModule:
    """Return the task of a folder written by export.py --format onnx, in eval mode.

    Its methods for raw inputs, such as `classify`, `embed` and `generate`, are unchanged.

    Args:
        folder: The folder.
        threads: Number of CPU threads; those of torch by default.

    Raises:
        UserError: If the folder was not written by export.py or is damaged, or onnxruntime is not
            installed.
    """
    folder = Path(folder)
    import_onnxruntime()
    try:
        described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if described["task"] not in modules.__all__:
            raise ValueError(f"unknown task {described['task']!r}")
        kind = getattr(modules, described["task"])
        net = OnnxLanguageNet if issubclass(kind, modules.LanguageModel) else OnnxNet
        task: Any = kind(
            net(str(folder / MODEL), threads, **described["net"]), **described["arguments"]
        )
        if "end_tokens" in described:
            task.end_tokens = frozenset(described["end_tokens"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{folder} is not a folder written by export.py --format onnx, or is damaged: {error}."
        ) from error
    return task.eval()
