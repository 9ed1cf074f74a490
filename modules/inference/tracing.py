"""Trace the network of a task: to torch.export, or to ONNX with optional int8 weights.

The batch size and the length of texts are dynamic. The traced network is compared with the original
one on batches of other shapes than the traced one.
"""

import inspect
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import modules
from engine.checkpoint.reading import load_task, read_checkpoint
from engine.checkpoint.sharded import as_single_file
from engine.errors import UserError
from modules.inference.onnx import OnnxNet
from modules.inference.onnx_runtime import DESCRIPTION, MODEL, import_onnxruntime
from modules.inference.pretrained import open_language_model
from modules.nets.huggingface.pretrained import Pretrained
from preprocessing.model_folders import find_source, is_remote

OPSET = 18  # supported by onnxruntime from 1.14 (2023) on
TOLERANCE = 1e-4  # of the largest output, or absolute for outputs below 1
TASKS = (
    *("Classifier", "MultiLabelClassifier", "Regressor", "TokenClassifier", "SentenceEncoder"),
    *("LanguageModel", "PreferenceModel"),
)
# Arguments of tasks that inference does not need, and that may hold more than plain values.
OF_TRAINING = (
    *("net", "optimizer", "lr_scheduler", "metrics", "adapter", "compile", "class_weights"),
    *("label_smoothing", "per_class", "loss", "beta", "_class_path", "_instantiator"),
)
Batch = dict[str, Tensor]


class NamedTextInputs(nn.Module):
    """A network of texts whose inputs have names instead of being in a dict."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        output: Tensor = self.net(inputs)
        return output


class WithoutState(nn.Module):
    """A language model without its state: tokens (B, T) to logits (B, T, V)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, input_ids: Tensor) -> Tensor:
        logits: Tensor = self.net(input_ids)[0]
        return logits


class NamedImageInput(nn.Module):
    """A network of images whose input has a name."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixel_values: Tensor) -> Tensor:
        output: Tensor = self.net(pixel_values)
        return output


def open_task(checkpoint: Path) -> L.LightningModule:
    """Return the task of a checkpoint, or of a model folder: a language model or an encoder.

    Raises:
        UserError: If it is neither, holds an adapter, or cannot be traced.
    """
    source = str(checkpoint)
    is_folder = checkpoint.is_dir() and (checkpoint / "config.json").is_file()
    if is_folder or (not checkpoint.exists() and is_remote(source)):
        try:
            config = json.loads((find_source(source) / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{error}.") from error
        if "CausalLM" in str(config.get("architectures")) or "LMHead" in str(config):
            return open_language_model(source)
        return modules.SentenceEncoder.from_pretrained(source)
    with as_single_file(checkpoint) as file:
        saved = read_checkpoint(file).get("hyper_parameters", {})
        if saved.get("adapter"):
            raise UserError(
                f"{checkpoint} holds an adapter: add --merge to write the network with the adapter "
                "merged into it."
            )
        name = str(saved.get("_class_path", "")).rpartition(".")[2]
        if name not in TASKS:
            raise UserError(
                f"{checkpoint} holds {name or 'an unnamed task'}; networks of "
                f"{', '.join(TASKS)} can be exported. Use --format safetensors."
            )
        task: L.LightningModule = load_task(file, getattr(modules, name), "train.py")
    return task


def export_torch_program(checkpoint: Path, folder: Path) -> None:
    """Write `model.pt2`, for torch.export.load, and its description."""
    task = open_task(checkpoint)
    traced = Traced(task)
    program = traced.program()
    difference = traced.largest_difference(lambda batch: program.module()(**batch))
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        torch.export.save(program, folder / "model.pt2")
    write_description(task, folder, {"largest_difference": difference})


def export_onnx(checkpoint: Path, folder: Path, quantize: bool = False) -> None:
    """Write `model.onnx` and its description, from which `load_onnx` rebuilds the task.

    Args:
        checkpoint: A checkpoint or model folder.
        folder: Folder to write to.
        quantize: Quantize the weights of linear layers to int8, one scale for each output channel.
            Activations are quantized at run time.

    Raises:
        UserError: If the packages are missing or the network cannot be exported.
    """
    import_onnxruntime()
    task = open_task(checkpoint)
    traced = Traced(task)
    program = traced.program()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MODEL
    try:
        with quiet():
            exported: Any = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                output_names=[traced.output_name],
                verbose=False,
            )
        exported.save(path)
    except ImportError as error:
        raise UserError(
            f"--format onnx needs the packages of the extra `onnx`, and {error.name} is missing: "
            "pip install 'stepladder[onnx]'."
        ) from error
    except Exception as error:  # the exporter raises anything for operators that it lacks
        raise traced.failed(error) from error
    run = OnnxNet(str(path)).forward
    difference = traced.largest_difference(lambda batch: run(batch))
    facts: dict[str, Any] = {"opset": OPSET, "largest_difference": difference}
    if quantize:
        quantize_weights(path)
        facts["quantized"] = "int8"
    write_description(task, folder, facts)


def quantize_weights(path: Path) -> None:
    """Replace an ONNX model by one with int8 weights."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    full = path.with_suffix(".float32")
    path.rename(full)
    with quiet():
        quantize_dynamic(full, path, weight_type=QuantType.QInt8, per_channel=True)
    full.unlink()


class Traced:
    """The network of a task with example inputs.

    Args:
        task: The task, in eval mode on the CPU.

    Raises:
        UserError: If the task has no network that can be traced.
    """

    output_name = "logits"

    def __init__(self, task: L.LightningModule) -> None:
        net: Any = task.net
        self.name = type(net).__name__
        self.context: int | None = getattr(net, "context", None)
        self.sizes: dict[str, int] = {}
        if any(isinstance(layer, nn.RNNBase) for layer in net.modules()):
            raise self.failed("recurrent layers fix the number of texts and tokens")
        if isinstance(task, modules.LanguageModel):
            self.net: nn.Module = WithoutState(net)
            self.inputs = ["input_ids"]
        elif getattr(task, "tokenizer", None) is not None:
            self.net = NamedTextInputs(net)
            self.inputs = ["input_ids", "attention_mask"]
            if isinstance(net, Pretrained) and "token_type_ids" in _arguments(net.model):
                self.inputs.append("token_type_ids")
        elif hasattr(net, "image_size"):
            self.net = NamedImageInput(net)
            self.inputs = ["pixel_values"]
            self.sizes = {"channels": getattr(net, "in_channels", 1), "size": net.image_size}
        else:
            raise self.failed("neither a tokenizer nor the size of images is known")
        if isinstance(task, modules.SentenceEncoder):
            self.output_name = "last_hidden_state"
        self.vocab_size = getattr(net, "vocab_size", None)
        if self.vocab_size is None and not self.sizes:
            tokenizer: Any = task.tokenizer
            self.vocab_size = tokenizer.get_vocab_size()
        self.net.eval()

    def batch(self, count: int, length: int) -> Batch:
        """Return random inputs: images, or texts of up to `length` tokens with padding."""
        draw = torch.Generator().manual_seed(count)
        if self.sizes:
            size = self.sizes["size"]
            shape = (count, self.sizes["channels"], size, size)
            return {"pixel_values": torch.rand(shape, generator=draw)}
        length = min(length, self.context or length)
        tokens = torch.randint(self.vocab_size or 1, (count, length), generator=draw)  # (B, T)
        lengths = (length - torch.arange(count)).clamp(min=1)  # (B,)
        mask = (torch.arange(length) < lengths[:, None]).long()  # (B, T)
        types = torch.zeros_like(tokens)
        batch = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": types}
        return {name: batch[name] for name in self.inputs}

    def program(self) -> ExportedProgram:
        """Trace the network.

        Raises:
            UserError: If it cannot be traced.
        """
        length = Dim("length", max=self.context) if self.context else Dim("length")
        # Networks with guards such as T != 2 refuse a named dimension. AUTO takes any guards; it
        # may also fix a size, which `largest_difference` finds.
        for batch_axis, length_axis in ((Dim("batch"), length), (Dim.AUTO, Dim.AUTO)):
            dynamic = {0: batch_axis} if self.sizes else {0: batch_axis, 1: length_axis}
            batch = self.batch(3, 7)
            shapes = dict.fromkeys(batch, dynamic)
            try:
                with quiet(), torch.no_grad():
                    return torch.export.export(
                        self.net, (), batch, dynamic_shapes=shapes, strict=False
                    )
            except Exception as raised:  # dynamic control flow, operators without a trace, …
                error = raised
        raise self.failed(error) from error

    def largest_difference(self, run: Any) -> float:
        """Return the largest difference of outputs on batches of other shapes than the traced one.

        Args:
            run: Function from a batch to the output of the exported network.

        Raises:
            UserError: If it cannot run them, or a difference exceeds the tolerance.
        """
        largest = 0.0
        for count, length in ((1, 5), (2, 1), (5, 19)):
            batch = self.batch(count, length)
            try:
                with torch.inference_mode():
                    expected, output = self.net(**batch), run(batch)
            except Exception as error:
                raise self.failed(error) from error
            scale = max(1.0, expected.abs().max().item())
            largest = max(largest, (expected - output).abs().max().item() / scale)
        if not largest <= TOLERANCE:
            raise self.failed(f"its outputs differ by {largest:.1e} from those of torch")
        return largest

    def failed(self, error: Any) -> UserError:
        reason = " ".join(str(error).split())[:300]
        return UserError(
            f"the network {self.name} cannot be exported: {reason}. Use --format safetensors."
        )


def write_description(task: Any, folder: Path, facts: dict[str, Any]) -> None:
    """Write the class and the arguments of a task as JSON, as `load_onnx` reads them."""
    accepted = _arguments(task, "__init__")
    is_subclass = "kwargs" in accepted  # PreferenceModel passes them on
    arguments = {
        name: value
        for name, value in task.hparams.items()
        if name not in OF_TRAINING and (is_subclass or name in accepted)
    }
    described = {
        "task": type(task).__name__,
        "arguments": arguments,
        "net": {name: getattr(task.net, name, None) for name in ("context", "vocab_size")},
        **facts,
        "torch": torch.__version__,
    }
    if isinstance(task, modules.LanguageModel):
        described["end_tokens"] = sorted(task.end_tokens)
    text = json.dumps(described, ensure_ascii=False, indent=2)
    (folder / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


def _arguments(owner: Any, method: str = "forward") -> set[str]:
    return set(inspect.signature(getattr(owner, method)).parameters)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the exporters' warnings, which concern their own code."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(disabled)
