"""Memory that a training takes on each device: `python -m benchmarks.memory --config …`.

    python -m benchmarks.memory --config configs/shakespeare/gpt.yaml
    python -m benchmarks.memory --config configs/shakespeare/gpt.yaml --measure
    python -m benchmarks.memory --config configs/openwebtext/gpt2_124m.yaml --vocab_size 50304 \\
        --devices 8 --strategy ddp -- --model.net.num_layers 48
    python -m benchmarks.memory --plan

Formulas: no net is trained, and none has any weights. Flags after `--` go to train.py's parser.
--measure runs three steps of train.py on the CPU, in a process of its own, and says how far off the
formulas are there. --plan prints the table of docs/scaling.md.

Weights, gradients and optimizer: Rajbhandari et al. 2020, "ZeRO: Memory optimizations toward
training trillion parameter models", section 3 and figure 1. Activations of a GPT: Korthikanti et
al. 2022, "Reducing activation recomputation in large transformer models", section 4, counted anew
for the block of modules/nets/gpt.py, which keeps its stream in float32 and may use a fused
attention. Other nets: every tensor that autograd keeps is counted on a pass with tensors that have
shapes and no contents; recurrent ones, whose kernels hide what they keep, with few rows for true.
All of it for eager mode: a compiled net keeps less.
"""

import argparse
import inspect
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_map_only

from modules.nets import GPT
from train import prepare_process
from user_errors import exit_on_user_error

STRATEGIES = ("single", "ddp", "fsdp", "zero2", "zero3", "tensor_parallel")
FLOAT, BF16 = 4, 2  # bytes
BUCKET = 200_000_000  # elements that DeepSpeed reduces at once: Lightning's default
GIB = 2**30


@dataclass(frozen=True)
class Job:
    """What is to be trained, and how.

    Args:
        net: On the meta device.
        rows: Rows of a batch on one device.
        precision: Lightning's name of it.
        optimizer: Makes an optimizer of parameters; by default AdamW.
        strategy: One of STRATEGIES.
        devices: How many share the work.
        accumulate: Batches a step: gradients stay from one to the next.
        device: `cpu` or `cuda`: they keep different things for the backward pass.
        inputs: Two rows of the net's inputs, only for a net that is no GPT.
    """

    net: nn.Module
    rows: int
    precision: str = "32-true"
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None
    strategy: str = "single"
    devices: int = 1
    accumulate: int = 1
    device: str = "cpu"
    inputs: Any = None

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.net.parameters())

    @property
    def weight_bytes(self) -> int:
        return BF16 if self.precision == "bf16-true" else FLOAT

    @property
    def compute_bytes(self) -> int:
        """Of what enters and leaves a matrix product."""
        return BF16 if self.precision.startswith("bf16") else FLOAT

    @property
    def tensor_parallel(self) -> int:
        return self.devices if self.strategy == "tensor_parallel" else 1


Parts = dict[str, float]  # bytes on one device, by name


# Weights, gradients, optimizer: "model states" in the words of the ZeRO paper.


def states(job: Job) -> Parts:
    """Bytes of what stays from step to step."""
    P, N, w = job.parameters, job.devices, job.weight_bytes
    optimizer = optimizer_bytes(job)
    root, block = units(job.net)
    if job.strategy == "fsdp":
        return {
            "weights": w * P / N,
            "gradients": w * P / N,
            "optimizer": optimizer / N,
            # The outermost unit stays gathered; of the blocks, one at work and the next on its way.
            "gathered weights": job.compute_bytes * (root + 2 * block),
            "gradients on their way": job.compute_bytes * max(root, block),
        }
    if job.strategy in ("zero2", "zero3"):
        # DeepSpeed computes with a low-precision copy and keeps float32 weights with the optimizer.
        c = job.compute_bytes
        stage3 = job.strategy == "zero3"
        return {
            "weights": c * P / (N if stage3 else 1),
            "gradients": c * P / N,
            "optimizer": (optimizer * FLOAT / w + FLOAT * P) / N,
            "gathered weights": c * (root + 2 * block) if stage3 else 0.0,
            "gradients on their way": c * min(P, BUCKET),
        }
    share = 1.0
    if job.strategy == "tensor_parallel":  # the blocks' matrices are cut, all else is whole
        matrices = [p for p in _blocks(job.net).parameters() if p.ndim >= 2]
        share = 1 - sum(p.numel() for p in matrices) / P * (1 - 1 / N)
    return {
        "weights": share * w * P,
        "gradients": share * w * P,
        "optimizer": share * optimizer,
        "gathered weights": 0.0,
        # DDP sums gradients in buckets of its own (gradient_as_bucket_view is off by default).
        "gradients on their way": float(w * P) if job.strategy == "ddp" else 0.0,
    }


def optimizer_bytes(job: Job) -> float:
    """What an optimizer keeps, found by one step on parameters without contents."""
    with torch.device("meta"):
        parameters = [
            nn.Parameter(torch.empty(p.shape, dtype=_dtype(job.weight_bytes)))
            for p in job.net.parameters()
        ]
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    made = (job.optimizer or torch.optim.AdamW)(parameters)
    for group in made.param_groups:  # kernels for a real device
        group.update({key: False for key in ("fused", "foreach") if key in group})
    made.step()
    kept = (v for state in made.state.values() for v in state.values() if isinstance(v, Tensor))
    return float(sum(tensor.numel() * tensor.element_size() for tensor in kept))


def _dtype(size: int) -> torch.dtype:
    return torch.bfloat16 if size == BF16 else torch.float32


def _blocks(net: nn.Module) -> nn.Module:
    found = getattr(net, "blocks", None)
    return found if isinstance(found, nn.ModuleList) else nn.ModuleList()


def units(net: nn.Module) -> tuple[int, int]:
    """Parameters outside the blocks, and of the largest block: what is gathered at once."""
    sizes = [sum(p.numel() for p in block.parameters()) for block in _blocks(net).children()]
    whole = sum(p.numel() for p in net.parameters())
    return whole - sum(sizes), max(sizes, default=0)


# Activations: what the forward pass keeps for the backward pass.


def gpt_activations(job: Job) -> Parts:
    """Bytes that autograd keeps for a GPT and the loss, before the backward pass begins.

    With n = B · T · D elements, s the bytes of the stream (4, unless all is bfloat16), c those of a
    matrix product, t devices of tensor parallelism, a block keeps

        n · (2s + 2c)              inputs of both norms, inputs of `qkv` and `up`
        n · 4c / t                 queries, keys, values, and what attention gives
        n · 8c / t                 both sides of the GELU
        B · H · T² · c / t         attention weights, if they are written out

    and with dropout a mask of n after each of its two parts, and one of B · H · T² beside a second
    copy of the weights. All in bfloat16, written out, with dropout and on a GPU that is
    Korthikanti's equation 1, n · (34 + 5 H T / D).
    """
    net = job.net
    assert isinstance(net, GPT)
    B, T, D, H, V = job.rows, net.context, net.dim, net.num_heads, net.vocab_size
    n, c, t = B * T * D, job.compute_bytes, job.tensor_parallel
    s = job.weight_bytes
    mixed = job.precision == "bf16-mixed"
    on_cpu = job.device == "cpu"
    # A mask is as wide as what it multiplies on a CPU, and one byte in the kernels of a GPU.
    mask = (c if on_cpu else 1) if net.dropout else 0
    fused = not (
        net.attention == "written_out"
        or (on_cpu and net.dropout)
        or (on_cpu and c == BF16 and net.attention == "auto")
    )
    stats = 2 * FLOAT * B * T if net.norm == "layer" else FLOAT * B * T  # mean, 1/σ of each token
    norm = n * s + stats
    if net.norm == "rms" and on_cpu:  # written out by PyTorch: it keeps x and x / rms in float32
        norm = n * 2 * FLOAT + stats
    attention = n * c * attended(net, fused) / t  # queries, keys, values
    attention += n * c / t  # what attention gives: the input of `proj`
    if net.positions == "rotary":
        attention += 2 * 2 * FLOAT * T * (D // H) / 2  # cosines and sines, for queries and keys
    if fused:
        attention += FLOAT * B * H * T / t  # log-sum-exp of each row of scores
        if net.positions == "rotary":  # what it gives lies as its queries do: `proj` needs a copy
            attention += n * c / t
    else:
        scores = B * H * T * T / t
        # Under autocast a GPU takes the softmax in float32 and casts it for the next product.
        attention += scores * (c if on_cpu or not mixed else FLOAT + BF16)
        attention += scores * (mask + c if net.dropout else 0)
    width: int = net.get_submodule("blocks.0.mlp.proj").in_features  # type: ignore[assignment]
    # SwiGLU keeps content and gate, silu(gate) and the product; GELU its input and its output.
    hidden = n / D * width * (4 if net.activation == "swiglu" else 2) * c / t
    block = 2 * (norm + n * c) + attention + hidden + 2 * n * mask
    # Autocast keeps a bfloat16 copy of every matrix until the backward pass is over.
    matrices = sum(p.numel() for p in net.blocks.parameters() if p.ndim >= 2) / t
    head = V * D
    own_copies = job.strategy in ("single", "ddp", "tensor_parallel")
    return {
        "blocks": net.num_layers * block,
        "last norm, head": norm + n * c + n * ((s if on_cpu else 1) if net.dropout else 0),
        "log-probabilities": FLOAT * B * T * V,
        "weights in bfloat16": BF16 * (matrices + head) if mixed and own_copies else 0.0,
        "tokens": 2 * 8 * B * T,
    }


def attended(net: GPT, fused: bool) -> float:
    """Queries, keys and values that one block keeps, in multiples of n.

    They are views of one tensor, the output of `qkv`, which is kept whole for the sake of one. What
    is turned by rotary positions or repeated for a group of heads is a tensor of its own.
    """
    share = (net.num_kv_heads or net.num_heads) / net.num_heads
    whole = 1 + 2 * share
    if not fused:
        return 3.0
    rotary, repeated = net.positions == "rotary", share < 1
    if repeated:
        return 3.0 if rotary else whole + 2
    return whole + 2 if rotary else whole


def counted_activations(job: Job) -> Parts:
    """Bytes that autograd keeps for any net, counted on a pass."""
    return {"all that autograd keeps": float(sum(_kept_sizes(job)))}


def _kept_sizes(job: Job) -> list[float]:
    if _recurrent(job.net):
        # What the kernels of recurrent nets keep is known only when they run: with few rows, then.
        two, four = (_pass(job, rows, nullcontext()) for rows in (2, 4))
        return [a + (b - a) * (job.rows - 2) / 2 for a, b in zip(two, four, strict=True)]
    return list(_pass(job, job.rows, FakeTensorMode(allow_non_fake_inputs=True)))


def _recurrent(net: nn.Module) -> bool:
    return any(isinstance(module, nn.RNNBase) for module in net.modules())


def _pass(job: Job, rows: int, mode: AbstractContextManager) -> list[int]:
    mixed = job.precision == "bf16-mixed"
    with mode:
        net = _on_cpu(job.net, _dtype(job.weight_bytes)).train()
        inputs = tree_map_only(
            Tensor, lambda x: torch.zeros((rows, *x.shape[1:]), dtype=x.dtype), job.inputs
        )
        # Without a cache, as Lightning has it: what uses a weight often casts it often.
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=mixed, cache_enabled=False)
        with SavedBytes(net) as saved, autocast:
            logits = net(inputs)
            logits = logits[0] if isinstance(logits, tuple) else logits
            targets = torch.zeros(logits.shape[:-1], dtype=torch.int64)
            F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten())
        return saved.sizes


def _on_cpu(net: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy with zeros in place of tensors on the meta device; what is shared stays so."""
    net = deepcopy(net)
    made: dict[int, Tensor] = {}
    for module in list(net.modules()):
        for table in (module._parameters, module._buffers):
            for name, tensor in list(table.items()):
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    new = torch.empty(
                        tensor.shape, dtype=dtype if tensor.is_floating_point() else tensor.dtype
                    )
                    is_parameter = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(new) if is_parameter else new
                setattr(module, name, made[id(tensor)])
    return net


class SavedBytes:
    """Counts the memory of all tensors that autograd keeps while it is entered, each once.

    The parameters of `net` do not count; a copy of them in another precision does.
    """

    def __init__(self, net: nn.Module) -> None:
        self.own = {_storage(p) for p in (*net.parameters(), *net.buffers())}
        self.kept: dict[int, Tensor] = {}  # alive, so that no two get the same address
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        if _storage(tensor) not in self.own:
            self.kept[_storage(tensor)] = tensor.detach()
        return tensor

    @property
    def sizes(self) -> list[int]:
        return [tensor.untyped_storage().nbytes() for tensor in self.kept.values()]

    def __enter__(self) -> "SavedBytes":
        self._hooks.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._hooks.__exit__(*exception)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


# Both together.


def activations(job: Job) -> Parts:
    """By formula for a GPT, else counted."""
    net = job.net
    if not isinstance(net, GPT):
        return counted_activations(job)
    if net.attention == "sdpa" and net.dropout and job.device == "cpu":
        # A path of its own inside PyTorch, slow and large, which only this setting takes.
        tokens = torch.empty(2, net.context, dtype=torch.int64, device="meta")
        return counted_activations(replace(job, inputs=tokens))
    return gpt_activations(job)


def peak(job: Job) -> float:
    """The most that is alive at once in a step; for a net that is no GPT, roughly.

    Lightning frees gradients after the forward pass, so at the end of that the last step's are
    still there. Then the loss is what matters for a large vocabulary: in the forward pass logits,
    their float32 copy and log-probabilities lie side by side; in the backward pass the
    log-probabilities and the gradients before and after them.
    """
    model, kept = states(job), sum(activations(job).values())
    constant = sum(model.values()) - model["gradients"]
    beside: float
    gradients: float
    if isinstance(job.net, GPT):
        elements = job.rows * job.net.context * job.net.vocab_size
        copy = FLOAT if job.compute_bytes == BF16 else 0
        beside, gradients = elements * (job.compute_bytes + copy), elements * 2 * FLOAT
    elif _recurrent(job.net):  # what its kernels need for a moment is little beside what they keep
        beside, gradients = 0.0, 0.0
    else:
        # The output of a layer lies beside what the next makes of it, and so do their gradients.
        beside = max(_kept_sizes(job))
        gradients = 2 * beside
    forward = model["gradients"] + kept + beside
    backward = kept + gradients + (model["gradients"] if job.accumulate > 1 else 0)
    return constant + max(forward, backward)


# From a config.


class Sizes(L.LightningDataModule):
    """Stands for a text that is not at hand: its sizes are all that memory depends on."""

    def __init__(self, vocab_size: int, context: int, batch_size: int, seed: int = 0) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.context = context
        self.batch_size = batch_size
        self.tokenizer_json = None


def job_from(arguments: list[str], options: argparse.Namespace) -> tuple[Job, L.LightningModule]:
    """What train.py would train, and the task."""
    from jsonargparse import Namespace

    from cli import CLI

    class Planned(CLI):
        """Builds task and data, with weights that have no contents, and goes no further."""

        def instantiate_classes(self) -> None:
            config = self.config[self.subcommand]
            self.batch_size = config.data.init_args.batch_size
            self.trainer_config = config.trainer
            config.trainer = Namespace({**vars(config.trainer), "callbacks": None, "logger": False})
            if options.vocab_size is not None:
                sizes = {"vocab_size": options.vocab_size, "batch_size": self.batch_size}
                sizes["context"] = getattr(config.data.init_args, "context", None)
                name = f"{Sizes.__module__}.{Sizes.__name__}"
                config.data = Namespace(class_path=name, init_args=Namespace(sizes))
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Lightning calls it so, too
                made = self.parser.instantiate_classes(self.config)
            self.model, self.datamodule = self._get(made, "model"), self._get(made, "data")

        def _run_subcommand(self, subcommand: str) -> None:
            """Nothing is run."""

    cli = Planned.of(["fit", *arguments])
    if getattr(cli.model, "net", None) is None:
        raise MisconfigurationException(
            f"{type(cli.model).__name__} has no single net whose memory could be told."
        )
    net: nn.Module = cli.model.net
    devices = options.devices
    share = 1 if options.strategy == "tensor_parallel" else devices
    if cli.batch_size % share:
        raise MisconfigurationException(
            f"batch_size {cli.batch_size} can't be divided among {share} devices: choose another "
            "number after `--`, as in `-- --data.batch_size …`."
        )
    inputs = None
    if not isinstance(net, GPT):
        cli.datamodule.prepare_data()
        cli.datamodule.setup("fit")
        batch = next(iter(cli.datamodule.train_dataloader()))
        inputs, _ = cli.datamodule.on_after_batch_transfer(batch, 0)
    job = Job(
        net,
        rows=cli.batch_size // share,
        precision=options.precision or _precision(cli, options.device),
        optimizer=cli.model.optimizer,
        strategy=options.strategy,
        devices=devices,
        accumulate=cli.trainer_config.accumulate_grad_batches,
        device=options.device,
        inputs=inputs,
    )
    return job, cli.model


def _precision(cli: Any, device: str) -> str:
    from precision import recommended_precision

    wanted = cli.trainer_config.precision
    if wanted is None and cli._get(cli.config, "auto_precision"):
        return "bf16-mixed" if device == "cuda" else recommended_precision("cpu")[0]
    return {None: "32-true", 32: "32-true", "32": "32-true"}.get(wanted, str(wanted))


# Measured.


class MemoryRecorder(L.Callback):
    """Writes what a fit has really taken: peak of the CPU's allocator, and what autograd kept.

    Args:
        path: A JSON file.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._profile.__enter__()

    def on_train_batch_start(self, trainer: L.Trainer, task: L.LightningModule, *_: Any) -> None:
        self._saved = SavedBytes(task)
        self._saved.__enter__()

    def on_before_backward(self, trainer: L.Trainer, task: L.LightningModule, loss: Tensor) -> None:
        self._saved.__exit__(None, None, None)
        self._activations = sum(self._saved.sizes)
        self._saved.kept.clear()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._profile.__exit__(None, None, None)
        events = self._profile.profiler.kineto_results.events()  # type: ignore[union-attr]
        changes = sorted(
            (event.start_ns(), event.nbytes())  # type: ignore[union-attr]
            for event in events
            if event.name() == "[memory]"
        )
        alive = most = 0
        for _, change in changes:
            alive += change
            most = max(most, alive)
        parameters = list(pl_module.parameters())
        (optimizer,) = trainer.optimizers
        kept = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
        weights = sum(p.numel() * p.element_size() for p in parameters)
        seen = {
            "weights": weights,
            "optimizer": sum(tensor.numel() * tensor.element_size() for tensor in kept),
            "activations": self._activations,
            "peak": weights + most,  # the weights were there before
        }
        Path(self.path).write_text(json.dumps(seen))


def measure(arguments: list[str], precision: str, compiles: bool) -> Parts:
    """Three steps of train.py on the CPU, in one process.

    Args:
        arguments: The configs and flags.
        precision: Lightning's name of it.
        compiles: The task may compile its net, which must be switched off.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memory.json"
        recorder = {"class_path": "benchmarks.memory.MemoryRecorder"}
        flags = {
            "--runs_dir": folder,
            "--test_after_fit": "false",
            **({"--model.compile": "false"} if compiles else {}),
            "--checkpoint.monitor": "null",
            "--trainer.max_steps": "3",
            "--trainer.limit_val_batches": "0",
            "--trainer.val_check_interval": "1.0",
            "--trainer.check_val_every_n_epoch": "1",
            "--trainer.accelerator": "cpu",
            "--trainer.devices": "1",
            "--trainer.strategy": "auto",
            "--trainer.precision": precision,
            "--trainer.callbacks": json.dumps([recorder | {"init_args": {"path": str(path)}}]),
        }
        command = [sys.executable, "train.py", "fit", *arguments]
        command += [word for flag in flags.items() for word in flag]
        done = subprocess.run(command, capture_output=True, text=True)
        if not path.exists():
            raise MisconfigurationException(
                f"train.py ended with code {done.returncode}: {done.stderr.strip()[-600:]}"
            )
        found: Parts = json.loads(path.read_text())
        return found


# Shown.


def human(size: float) -> str:
    return f"{size / GIB:,.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.2f} MiB"


def show(job: Job, console: Console) -> None:
    name = type(job.net).__name__
    table = Table(title=f"{name}, {job.parameters:,} parameters, on each of {job.devices} devices")
    table.add_column("what")
    table.add_column("bytes", justify="right")
    for part, size in states(job).items():
        if size:
            table.add_row(part, human(size))
    table.add_section()
    for part, size in activations(job).items():
        if size:
            table.add_row(f"activations: {part}", human(size))
    table.add_section()
    table.add_row("peak of a step", human(peak(job)))
    table.caption = (
        f"{job.strategy}, {job.rows} rows a device, {job.precision}, {job.device}; by formula"
    )
    console.print(table)


def compare(job: Job, seen: Parts, console: Console) -> None:
    table = Table(title="formula against three steps of train.py on this CPU")
    for column in ("what", "formula", "measured", "error"):
        table.add_column(column, justify="left" if column == "what" else "right")
    model = states(job)
    for name, size in {
        "weights": model["weights"],
        "optimizer": model["optimizer"],
        "activations": sum(activations(job).values()),
        "peak": peak(job),
    }.items():
        error = f"{size / seen[name] - 1:+.1%}" if seen[name] else "–"
        table.add_row(name, human(size), human(seen[name]), error)
    console.print(table)


# A plan from one machine to many: the table of docs/scaling.md.

SHAPES = {  # layers, heads, width, context
    "10.7 M": (6, 6, 384, 256),
    "124 M": (12, 12, 768, 1024),
    "355 M": (24, 16, 1024, 1024),
    "774 M": (36, 20, 1280, 1024),
    "1.6 B": (48, 25, 1600, 1024),
    "6.7 B": (32, 32, 4096, 2048),  # as Brown et al. 2020 name it, and the next
    "13 B": (40, 40, 5120, 2048),
}
PLAN = (  # size, machine, devices, strategy, rows a device, accumulated batches
    ("10.7 M", "laptop, CPU", 1, "single", 12, 5),
    ("124 M", "1 x 24 GB", 1, "single", 8, 60),
    ("124 M", "1 x 80 GB", 1, "single", 32, 15),
    ("124 M", "8 x 40 GB", 8, "ddp", 12, 5),
    ("355 M", "8 x 80 GB", 8, "ddp", 15, 4),
    ("774 M", "8 x 80 GB", 8, "ddp", 6, 10),
    ("774 M", "8 x 80 GB", 8, "zero2", 6, 10),
    ("1.6 B", "8 x 80 GB", 8, "fsdp", 6, 10),
    ("1.6 B", "8 x 8 x 80 GB", 64, "fsdp", 8, 1),
    ("6.7 B", "8 x 8 x 80 GB", 64, "fsdp", 4, 4),
    ("6.7 B", "8 x 8 x 80 GB", 64, "zero3", 4, 4),
    ("13 B", "16 x 8 x 80 GB", 128, "fsdp", 2, 4),
    ("13 B", "64 x 8 x 80 GB", 512, "fsdp", 2, 1),
)


def planned(
    size: str, devices: int = 1, strategy: str = "single", rows: int = 1, accumulate: int = 1
) -> Job:
    """A GPT in bfloat16 on GPUs (the smallest: in float32 on a CPU), without dropout."""
    layers, heads, dim, context = SHAPES[size]
    on_cpu = size == "10.7 M"
    vocab_size = 65 if on_cpu else 50_304
    with torch.device("meta"):
        net = GPT(vocab_size, context, num_layers=layers, num_heads=heads, dim=dim, bias=False)
    precision, device = ("32-true", "cpu") if on_cpu else ("bf16-mixed", "cuda")
    return Job(net, rows, precision, None, strategy, devices, accumulate, device)


def plan() -> str:
    """The table in Markdown."""
    head = "size | machine | strategy | rows a device x batches | tokens a step | states"
    lines = [f"| {head} | activations | peak |", "|" + " --- |" * 8]
    for size, machine, devices, strategy, rows, accumulate in PLAN:
        job = planned(size, devices, strategy, rows, accumulate)
        tokens = rows * devices * accumulate * SHAPES[size][3]
        sizes = (sum(states(job).values()), sum(activations(job).values()), peak(job))
        cells = [size, machine, strategy, f"{rows} x {accumulate}", f"{tokens:,}"]
        lines.append("| " + " | ".join([*cells, *(f"{s / GIB:.1f} GiB" for s in sizes)]) + " |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "python -m benchmarks.memory", description=__doc__, allow_abbrev=False
    )
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    add = made.add_argument
    add("--config", action="append", default=[], metavar="FILE", help="of train.py, stackable")
    add("--devices", type=int, default=1, metavar="N", help="of all nodes together (1)")
    add("--strategy", choices=STRATEGIES, help="ddp where there are several devices, else single")
    add("--device", choices=("cpu", "cuda"), default="cuda", help="kind of device (cuda)")
    add("--precision", choices=("32-true", "bf16-mixed", "bf16-true"), help="else the config's")
    add("--vocab_size", type=int, metavar="V", help="of a text that is not at hand")
    add("--measure", action="store_true", help="also run three steps on this CPU and compare")
    add("--plan", action="store_true", help="print the table of docs/scaling.md")
    return made


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Raises:
        SystemExit: With code 2 after a user's mistake, told in one sentence on stderr.
    """
    given = sys.argv[1:] if args is None else args
    at = given.index("--") if "--" in given else len(given)
    options, flags = parser().parse_args(given[:at]), given[at + 1 :]
    prepare_process()
    console = Console()
    with exit_on_user_error("benchmarks.memory"):
        if options.plan:
            print(plan())
            return
        options.strategy = options.strategy or ("ddp" if options.devices > 1 else "single")
        check(options)
        arguments = [word for path in options.config for word in ("--config", path)] + flags
        job, task = job_from(arguments, options)
        show(job, console)
        if options.measure:
            compiles = "compile" in inspect.signature(type(task)).parameters
            compare(job, measure(arguments, job.precision, compiles), console)


def check(options: argparse.Namespace) -> None:
    """Refuse what makes no sense together."""
    if options.measure:
        options.device = "cpu"
    for complaint, justified in {
        "name what would be trained by --config, or print the --plan.": not options.config,
        f"--devices is {options.devices}: it must be 1 or more.": options.devices < 1,
        f"--strategy {options.strategy} is for several devices: name them by --devices.": (
            options.strategy not in ("single",) and options.devices == 1
        ),
        "--strategy single is for one device.": (
            options.strategy == "single" and options.devices > 1
        ),
        "--measure runs one process on this CPU: leave --devices out.": (
            options.measure and options.devices > 1
        ),
        "--measure needs the data: leave --vocab_size out.": (
            options.measure and options.vocab_size is not None
        ),
    }.items():
        if justified:
            raise MisconfigurationException(complaint)


if __name__ == "__main__":
    main()
