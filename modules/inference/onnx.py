"""Tasks of torch whose network runs by onnxruntime; see onnx_runtime.py for those without torch."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

import modules
from modules.inference.onnx_runtime import (
    MODEL,
    OnnxSession,
    damaged,
    import_onnxruntime,
    read_description,
)


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
        self.context = context
        self.vocab_size = vocab_size
        self.session = OnnxSession(path, threads or torch.get_num_threads(), context)

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        """Return the output for images or tokens, or for `input_ids` and `attention_mask`."""
        if isinstance(inputs, Tensor):
            return torch.from_numpy(self.session.run(inputs.cpu().numpy()))
        arrays = {name: tensor.cpu().numpy() for name, tensor in inputs.items()}
        return torch.from_numpy(self.session.run(arrays))


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
        described = read_description(folder)
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
        raise damaged(folder, error) from error
    return task.eval()
