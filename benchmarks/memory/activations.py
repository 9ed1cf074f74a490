"""What the forward pass keeps for the backward pass, and the peak of a step."""

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
from benchmarks.memory.states import dtype_of_size, states
from modules.nets import GPT


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
        net.attention == "eager"
        or (on_cpu and net.dropout)
        or (on_cpu and c == BF16 and net.attention == "auto")
    )
    stats = 2 * FLOAT * B * T if net.norm == "layer" else FLOAT * B * T  # mean, 1/σ of each token
    norm = n * s + stats
    if net.norm == "rms" and on_cpu:  # written out by PyTorch: it keeps x and x / rms in float32
        norm = n * 2 * FLOAT + stats
    attention = n * c * attended(net, fused) / t  # queries, keys, values
    attention += n * c / t  # what attention gives: the input of `proj`
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
        # Cosines and sines, the same for all blocks.
        "positions": FLOAT * T * D / H if net.positions == "rotary" else 0.0,
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
    if repeated:  # queries and keys turn as one tensor, which is kept for the queries
        return 1 + share + 2 if rotary else whole + 2
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
        net = _on_cpu(job.net, dtype_of_size(job.weight_bytes)).train()
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
        own = {"recurse": False, "remove_duplicate": False}
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
    """Counts the memory of all tensors that autograd keeps while it is entered, each once.

    The parameters of `net` do not count; a copy of them in another precision does.
    """

    def __init__(self, net: nn.Module) -> None:
        self.own = {storage_of(p) for p in (*net.parameters(), *net.buffers())}
        self.kept: dict[int, Tensor] = {}  # alive, so that no two get the same address
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        if storage_of(tensor) not in self.own:
            self.kept[storage_of(tensor)] = tensor.detach()
        return tensor

    @property
    def sizes(self) -> list[int]:
        return [tensor.untyped_storage().nbytes() for tensor in self.kept.values()]

    def __enter__(self) -> "SavedBytes":
        self._hooks.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._hooks.__exit__(*exception)


def storage_of(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # noqa: SLF001  # data_ptr is 0 on the meta device


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
        # The output of a layer lies beside what the next makes of it, and so do their gradients: at
        # the most those of the two largest.
        sizes = sorted(_kept_sizes(job))
        beside, gradients = sizes[-1], sum(sizes[-2:])
    forward = model["gradients"] + kept + beside
    backward = kept + gradients + (model["gradients"] if job.accumulate > 1 else 0)
    return constant + max(forward, backward)
