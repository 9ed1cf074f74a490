"""Bytes of activations that autograd saves for the backward pass, and the peak of a step."""

from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC2701  # no public name
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only  # noqa: PLC2701  # no public name

from benchmarks.memory.job import BF16, FLOAT, Job, Parts
from benchmarks.memory.states import dtype_of_size, states, units
from engine.activation_checkpointing import checkpoint_activations
from modules.nets import GPT


def gpt_activations(job: Job) -> Parts:
    """Return the bytes saved for a GPT and its loss before the backward pass starts.

    With n = B · T · D elements, s bytes per element of the residual stream (4, or 2 in bf16-true),
    c bytes per element of a matrix product and t devices of tensor parallelism, a block saves

        n · (2s + 2c)              inputs of both norms, inputs of `qkv` and `up`
        n · 4c / t                 queries, keys, values and the output of attention
        n · 8c / t                 input and output of GELU
        B · H · T² · c / t         attention weights, if attention is eager

    and with dropout a mask of n elements after attention and after the MLP, and for eager attention
    a mask of B · H · T² elements with a second copy of the weights. In bfloat16, eager, with
    dropout and on a GPU this is Korthikanti's equation 1, n · (34 + 5 H T / D).

    A checkpointed block saves n · s, its input; selectively also n · 9c / t, the outputs of its
    linear layers and of fused attention. A loss in chunks saves the output of the last norm, n · s.
    """
    net = job.net
    assert isinstance(net, GPT)
    B, T, D, H, V = job.rows, net.context, net.dim, net.num_heads, net.vocab_size
    n, c, s = B * T * D, job.compute_bytes, job.weight_bytes
    mixed = job.precision == "bf16-mixed"
    on_cpu = job.device == "cpu"
    # Autocast keeps a bfloat16 copy of every matrix until the end of the backward pass.
    matrices = sum(p.numel() for p in net.blocks.parameters() if p.ndim >= 2) / job.tensor_parallel
    head = V * D
    if job.loss_chunk_size:
        head = 0  # each chunk makes a copy of its own
    own_copies = job.strategy in ("single", "ddp", "tensor_parallel")
    checkpointed = 0
    if job.checkpointing:
        checkpointed = -(-net.num_layers // job.checkpoint_every)
        matrices *= 1 - checkpointed / net.num_layers  # the copies are not kept
    return {
        "blocks": (net.num_layers - checkpointed) * gpt_block(job),
        "checkpointed blocks": checkpointed * gpt_checkpointed_block(job),
        "last norm, head": gpt_norm(job)
        + n * (s if job.loss_chunk_size else c)
        + n * ((s if on_cpu else 1) if net.dropout else 0),
        "log-probabilities": 0.0 if job.loss_chunk_size else FLOAT * B * T * V,
        "weights in bfloat16": BF16 * (matrices + head) if mixed and own_copies else 0.0,
        "tokens": 2 * 8 * B * T,
        "causal mask": FLOAT * T * T if checkpointed else 0.0,
        # Cosines and sines, shared by all blocks.
        "positions": FLOAT * T * D / H if net.positions == "rotary" else 0.0,
    }


def gpt_norm(job: Job) -> float:
    """Return the bytes that a norm saves."""
    net: Any = job.net
    tokens = job.rows * net.context
    # mean and 1/σ of each token
    stats = 2 * FLOAT * tokens if net.norm == "layer" else FLOAT * tokens
    if net.norm == "rms" and job.device == "cpu":
        # PyTorch composes it of several operations and saves x and x / rms
        return tokens * net.dim * 2 * FLOAT + stats
    return tokens * net.dim * job.weight_bytes + stats


def is_fused(job: Job) -> bool:
    """Return whether a GPT's attention is PyTorch's fused kernel."""
    net: Any = job.net
    on_cpu = job.device == "cpu"
    return not (
        net.attention == "eager"
        or (on_cpu and net.dropout)
        or (on_cpu and job.compute_bytes == BF16 and net.attention == "auto")
    )


def gpt_block(job: Job) -> float:
    """Return the bytes that a block saves; see `gpt_activations`."""
    net: Any = job.net
    B, T, D, H = job.rows, net.context, net.dim, net.num_heads
    n, c, t = B * T * D, job.compute_bytes, job.tensor_parallel
    on_cpu, fused = job.device == "cpu", is_fused(job)
    # A dropout mask has the type of its input on a CPU, and one byte per element on a GPU.
    mask = (c if on_cpu else 1) if net.dropout else 0
    attention = n * c * qkv_multiples(net, fused) / t  # queries, keys, values
    attention += n * c / t  # output of attention = input of `proj`
    if fused:
        attention += FLOAT * B * H * T / t  # log-sum-exp of each row of scores
        if net.positions == "rotary":  # the output has the layout of the queries: `proj` copies it
            attention += n * c / t
    else:
        scores = B * H * T * T / t
        # Under autocast a GPU computes the softmax in float32 and casts the result.
        mixed = job.precision == "bf16-mixed"
        attention += scores * (c if on_cpu or not mixed else FLOAT + BF16)
        attention += scores * (mask + c if net.dropout else 0)
    width: int = net.get_submodule("blocks.0.mlp.proj").in_features
    # SwiGLU saves value, gate, silu(gate) and their product; GELU saves its input and output.
    hidden = n / D * width * (4 if net.activation == "swiglu" else 2) * c / t
    return 2 * (gpt_norm(job) + n * c) + attention + hidden + 2 * n * mask


def gpt_checkpointed_block(job: Job) -> float:
    """Return the bytes that a checkpointed block saves: its input, and outputs if selective."""
    net: Any = job.net
    n, c, t = job.rows * net.context * net.dim, job.compute_bytes, job.tensor_parallel
    saved = float(n * job.weight_bytes)
    if job.checkpointing == "selective":
        block: Any = net.blocks[0]
        outputs = (block.attention.qkv.out_features + block.mlp.up.out_features) / t + 2 * net.dim
        saved += n / net.dim * outputs * c
        if is_fused(job):
            saved += (n * c + FLOAT * job.rows * net.num_heads * net.context) / t
    return saved


def qkv_multiples(net: GPT, fused: bool) -> float:
    """Return the size of the saved queries, keys and values of a block, in multiples of n.

    They are views of one tensor, the output of `qkv`, which is saved as a whole if one of them is.
    Rotated queries and keys, and keys and values repeated for grouped heads, are separate tensors.
    """
    kv_fraction = (net.num_kv_heads or net.num_heads) / net.num_heads
    qkv = 1 + 2 * kv_fraction
    if not fused:
        return 3.0
    rotary, repeated = net.positions == "rotary", kv_fraction < 1
    if repeated:  # queries and keys are rotated as one tensor, saved for the queries
        return 1 + kv_fraction + 2 if rotary else qkv + 2
    return qkv + 2 if rotary else qkv


def counted_activations(job: Job) -> Parts:
    """Return the bytes that autograd saves for any network, counted in a forward pass."""
    return {"saved by autograd": float(sum(_kept_sizes(job)))}


def _kept_sizes(job: Job) -> list[float]:
    if _recurrent(job.net):
        # Workspaces of recurrent kernels are known only when they run: use few rows.
        two, four = (_pass(job, rows, nullcontext()) for rows in (2, 4))
        return [a + (b - a) * (job.rows - 2) / 2 for a, b in zip(two, four, strict=True)]
    return list(_pass(job, job.rows, FakeTensorMode(allow_non_fake_inputs=True)))


def _recurrent(net: nn.Module) -> bool:
    return any(isinstance(module, nn.RNNBase) for module in net.modules())


def _pass(job: Job, rows: int, mode: AbstractContextManager) -> list[int]:
    mixed = job.precision == "bf16-mixed"
    with mode:
        net = _on_cpu(job.net, dtype_of_size(job.weight_bytes)).train()
        if job.checkpointing:
            checkpoint_activations(net, job.checkpointing, job.checkpoint_every)
        inputs = tree_map_only(
            Tensor, lambda x: torch.zeros((rows, *x.shape[1:]), dtype=x.dtype), job.inputs
        )
        # Lightning disables the cache: a weight is cast at each use.
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=mixed, cache_enabled=False)
        with SavedBytes(net) as saved, autocast:
            logits = net(inputs)
            logits = logits[0] if isinstance(logits, tuple) else logits
            targets = torch.zeros(logits.shape[:-1], dtype=torch.int64)
            F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten())
        return saved.sizes


def _on_cpu(net: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy with real tensors in place of meta tensors; shared tensors stay shared."""
    net = deepcopy(net)
    made: dict[int, Tensor] = {}
    for module in list(net.modules()):
        own: dict[str, Any] = {"recurse": False, "remove_duplicate": False}
        for name, tensor in [*module.named_parameters(**own), *module.named_buffers(**own)]:
            if id(tensor) not in made:
                new = torch.empty(
                    tensor.shape, dtype=dtype if tensor.is_floating_point() else tensor.dtype
                )
                is_parameter = isinstance(tensor, nn.Parameter)
                made[id(tensor)] = nn.Parameter(new) if is_parameter else new
            setattr(module, name, made[id(tensor)])
    return net


class SavedBytes:
    """Context manager that records the memory of all tensors saved by autograd, each once.

    Parameters of `net` are excluded; copies of them in another precision are included.
    """

    def __init__(self, net: nn.Module) -> None:
        self.own = {storage_of(p) for p in (*net.parameters(), *net.buffers())}
        self.kept: dict[int, Tensor] = {}  # kept alive, so that addresses are unique
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        if storage_of(tensor) not in self.own:
            self.kept[storage_of(tensor)] = tensor.detach()
        return tensor

    @property
    def sizes(self) -> list[int]:
        """Bytes of each saved tensor."""
        return [tensor.untyped_storage().nbytes() for tensor in self.kept.values()]

    def __enter__(self) -> "SavedBytes":
        self._hooks.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._hooks.__exit__(*exception)


def storage_of(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # noqa: SLF001  # data_ptr is 0 on the meta device


def activations(job: Job) -> Parts:
    """Return the saved bytes: by formula for a GPT, counted for other networks."""
    net = job.net
    if not isinstance(net, GPT):
        return counted_activations(job)
    if net.attention == "sdpa" and net.dropout and job.device == "cpu":
        # PyTorch uses a separate, slower implementation for this combination.
        tokens = torch.empty(2, net.context, dtype=torch.int64, device="meta")
        return counted_activations(replace(job, inputs=tokens))
    return gpt_activations(job)


def peak(job: Job) -> float:
    """Return the peak memory of a step; an estimate for networks other than GPT.

    Lightning frees gradients after the forward pass, so those of the last step are still allocated
    during it. For a large vocabulary the loss dominates: in the forward pass logits, their float32
    copy and log-probabilities coexist; in the backward pass the log-probabilities and the gradients
    with respect to them and to the logits. With checkpointing, so may the backward pass of a block.
    """
    model, saved = states(job), activations(job)
    kept = sum(saved.values())
    constant = sum(model.values()) - model["gradients"]
    temporary: float
    gradients: float
    if isinstance(job.net, GPT):
        tokens = job.rows * job.net.context
        elements = min(job.loss_chunk_size or tokens, tokens) * job.net.vocab_size
        copy = FLOAT if job.compute_bytes == BF16 else 0
        temporary, gradients = elements * (job.compute_bytes + copy), elements * 2 * FLOAT
        if job.loss_chunk_size:  # logits and log-probabilities of one chunk at a time
            temporary += elements * FLOAT
            gradients += elements * (FLOAT + job.compute_bytes)
            # Gradient of the output layer: the sum so far, and that of a chunk.
            gradients += 2 * FLOAT * job.net.vocab_size * job.net.dim
    elif _recurrent(job.net):  # temporary buffers are small compared with saved tensors
        temporary, gradients = 0.0, 0.0
    else:
        # Outputs of consecutive layers coexist, and so do their gradients: at most the two largest.
        sizes = sorted(_kept_sizes(job))
        temporary, gradients = sizes[-1], sum(sizes[-2:])
    forward = model["gradients"] + kept + temporary
    before = model["gradients"] if job.accumulate > 1 else 0
    backward = max(kept + gradients + before, _recomputed_peak(job, model, saved))
    return constant + max(forward, backward)


def _recomputed_peak(job: Job, model: Parts, parts: Parts) -> float:
    """Return the peak of gradients and activations in the backward pass of checkpointed blocks.

    The activations of one block coexist with the inputs of the blocks before it and the gradients
    of the weights after it. Both are linear in the number of the block, so that the maximum is at
    the first or the last. What a block saved selectively becomes a part of its activations.
    """
    net = job.net
    if not job.checkpointing or not isinstance(net, GPT):
        return 0.0
    root, block = units(net)
    sharded = model["gradients"] / (job.weight_bytes * job.parameters)
    constant = parts["tokens"] + parts["causal mask"] + parts["positions"]
    n = job.rows * net.context * net.dim
    recomputed = gpt_block(job) - (gpt_checkpointed_block(job) - n * job.weight_bytes)
    # Gradients of the residual stream and of the hidden layer.
    width: int = net.get_submodule("blocks.0.mlp.proj").in_features  # type: ignore[assignment]
    recomputed += n * job.weight_bytes + n / net.dim * width * job.compute_bytes
    if job.precision == "bf16-mixed":
        recomputed += BF16 * block / job.tensor_parallel
    kept = parts["blocks"] + parts["checkpointed blocks"] + parts["weights in bfloat16"]
    last = kept + root * job.weight_bytes * sharded
    first = kept / net.num_layers + model["gradients"] - block * job.weight_bytes * sharded
    if job.accumulate > 1:
        last = kept + model["gradients"]
    return constant + recomputed + max(last, first)
