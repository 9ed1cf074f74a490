"""Shard a task's network for `engine.distributed.ModelParallel`: FSDP2 and tensor parallelism.

A network is a plain module with two optional attributes; one without them is a single FSDP unit.

    blocks                   an nn.ModuleList; FSDP gathers the weights of one block at a time
    tensor_parallel_plan()   which matrices of every block are split, and how; see GPT

FSDP (Zhao et al. 2023; Rajbhandari et al. 2020, stage 3) keeps a shard of every weight, gradient
and optimizer state on each process and gathers a block's weights before it runs. Tensor parallelism
(Shoeybi et al. 2019, "Megatron-LM", section 3) also splits the computation: one matrix by columns,
the next by rows, followed by an all-reduce.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Protocol

import lightning as L
import torch
from torch import Tensor, distributed, nn
from torch.distributed._functional_collectives import (  # noqa: PLC2701  # differentiable
    all_to_all_single_autograd,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)

from engine.errors import UserError

# Name of a linear layer → ROWS, or the sizes of the parts of its output, in units that are not
# split; queries, keys and values are three parts, each with its number of heads.
ROWS = "rows"
Plan = Mapping[str, str | Sequence[int]]


class TensorParallelNet(Protocol):
    """A network whose blocks support tensor parallelism."""

    blocks: nn.ModuleList

    def tensor_parallel_plan(self) -> Plan: ...


def shard(task: L.LightningModule) -> None:
    """Shard `task.net` in place under `ModelParallel`, otherwise do nothing; for `configure_model`.

    Args:
        task: The task; a network that is sharded already stays as it is.

    Raises:
        UserError: If the network does not support the strategy's tensor parallelism.
    """
    mesh = task.device_mesh
    net: nn.Module = task.net  # type: ignore[assignment]
    if mesh is None or is_sharded(net):
        return
    if mesh["tensor_parallel"].size() > 1:
        if getattr(task, "adapter", None) is not None:
            raise UserError(
                "tensor parallelism does not support adapters: use --config "
                "configs/trainer/fsdp.yaml or ddp.yaml."
            )
        apply_tensor_parallel(net, mesh["tensor_parallel"])
        if mesh["data_parallel"].size() == 1:
            return
    for weight in net.parameters():  # FSDP needs contiguous weights, not channels-last
        weight.data = weight.data.contiguous()
    mixed = task.trainer.precision == "bf16-mixed"
    cpu_offload: bool = getattr(task.trainer.strategy, "cpu_offload", False)
    offload = (
        CPUOffloadPolicy(pin_memory=mesh.device_type == "cuda") if cpu_offload else OffloadPolicy()
    )
    for part in fsdp_modules(net):
        gather_in_bf16 = mixed and part is not net
        if gather_in_bf16:
            _compute_norms_in_fp32(part)
        name = type(part).__name__
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if gather_in_bf16 else None,
            reduce_dtype=torch.float32 if gather_in_bf16 else None,
            cast_forward_inputs=False,
        )
        fully_shard(part, mesh=mesh["data_parallel"], mp_policy=policy, offload_policy=offload)
        type(part).__name__ = name  # fully_shard makes a subclass: FSDPGPT
    load_deferred_weights(net, torch.device("cpu") if cpu_offload else task.device)
    if any(True for _ in net.buffers()):
        net.register_forward_pre_hook(_broadcast_buffers)


def load_deferred_weights(net: nn.Module, device: torch.device) -> None:
    """Give weights on the meta device their values, so that each process stores its shard only.

    Args:
        net: A network that is sharded by FSDP2. Its attribute `deferred_weights` maps the names of
            the weights that are on the meta device to functions that return the full weights, of
            which one exists at a time.
        device: Device of the shards.
    """
    functions = net.__dict__.pop("deferred_weights", None)
    if functions is None:
        return
    shards: dict[str, Tensor] = {}
    for name, weight in net.named_parameters():
        if weight.is_meta and isinstance(weight, DTensor):
            full = functions.pop(name)().to(weight.dtype)
            shard = distribute_tensor(
                full, weight.device_mesh, weight.placements, src_data_rank=None
            )
            shards[name] = shard.to(device)
    swap = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # tied weights stay tied
    try:
        net.load_state_dict(shards, strict=False, assign=True)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swap)


def is_sharded(net: nn.Module) -> bool:
    """Return whether the network is sharded."""
    return isinstance(net, FSDPModule) or any(isinstance(w, DTensor) for w in net.parameters())


def fsdp_modules(net: nn.Module) -> list[nn.Module]:
    """Return the FSDP units: the blocks of a network, and the network itself last."""
    blocks = getattr(net, "blocks", None)
    return [*blocks, net] if isinstance(blocks, nn.ModuleList) else [net]


def _compute_norms_in_fp32(block: nn.Module) -> None:
    """Let normalization layers compute in float32 although weights are gathered in bfloat16.

    With float32 weights, autocast would cast the gathered matrices and keep the copies until the
    backward pass, so that every process would hold the full network. Weights gathered in bfloat16
    need no cast and half the traffic. Gradients are reduced in float32.
    """
    for module in block.modules():
        own = dict(module.named_parameters(recurse=False))
        if own and all(weight.ndim < 2 for weight in own.values()):
            ReplacedParameters(module, [(module, name) for name in own], Tensor.float)


def _broadcast_buffers(net: nn.Module, inputs: Any) -> None:
    """Use the batch-norm statistics of the first process, as DDP does."""
    for buffer in net.buffers():
        distributed.broadcast(buffer, 0)


# Tensor parallelism.


def apply_tensor_parallel(net: nn.Module, mesh: DeviceMesh) -> None:
    """Shard the matrices of a network's plan and replicate all other weights.

    Args:
        net: A TensorParallelNet.
        mesh: The one-dimensional mesh of a tensor-parallel group.

    Raises:
        UserError: If the network has no plan, or the group's size does not divide a part.
    """
    if not hasattr(net, "tensor_parallel_plan"):
        raise UserError(
            f"{type(net).__name__} does not support tensor parallelism: use --config "
            "configs/trainer/fsdp.yaml, or add a `tensor_parallel_plan` as in modules.nets.GPT."
        )
    plan: Plan = net.tensor_parallel_plan()  # type: ignore[operator]
    _check_divides(net, plan, mesh.size())
    styles: dict[str, ParallelStyle] = {
        name: RowwiseParallel() if parts == ROWS else ColwiseParallel()
        for name, parts in plan.items()
    }
    for block in net.blocks:  # type: ignore[union-attr]
        parallelize_module(block, mesh, styles)
        for name, parts in plan.items():
            if not isinstance(parts, str) and len(parts) > 1:
                layer = block.get_submodule(name)
                layer.register_forward_hook(RegroupOutputs(layer.out_features, parts, mesh))
    for part in fsdp_modules(net):
        replicate(part, mesh)


def _check_divides(net: nn.Module, plan: Plan, size: int) -> None:
    for name, parts in plan.items():
        if parts != ROWS and any(int(part) % size for part in parts):
            sizes = ", ".join(map(str, dict.fromkeys(parts)))
            raise UserError(
                f"tensor parallelism with {size} processes: {name} of {type(net).__name__} has "
                f"parts of {sizes} heads or channels, and {size} must divide each; change the "
                "network's sizes, or lower --trainer.strategy.tensor_parallel_size."
            )


class RegroupOutputs:
    """Exchange a fused layer's output columns so that each process has its shard of every part.

    A fused projection has queries, keys and values in one matrix, one part after the other; a
    contiguous shard gives all queries to the first process and all values to the last. The weights
    stay sharded that way, so that checkpoints equal those of one process, and the outputs are
    exchanged by an all-to-all.

    Args:
        width: Output features of the full layer.
        parts: Number of units of each part.
        mesh: The one-dimensional mesh of a tensor-parallel group.
    """

    def __init__(self, width: int, parts: Sequence[int], mesh: DeviceMesh) -> None:
        self.group = mesh.get_group()
        size, rank = mesh.size(), mesh.get_local_rank()
        unit = width // sum(parts)
        ends = [end * unit for end in accumulate(parts)]
        wanted = [
            {
                column
                for end, units in zip(ends, parts, strict=True)
                for column in _shard_of(range(end - units * unit, end), number, size)
            }
            for number in range(size)
        ]
        computed = [_shard_of(range(width), number, size) for number in range(size)]
        mine = computed[rank]
        # Ordered by receiving process; each receives columns in the order of the full layer.
        send = [[c - mine.start for c in mine if c in columns] for columns in wanted]
        self.order = torch.tensor([column for columns in send for column in columns])
        self.send_sizes = [len(columns) for columns in send]
        self.receive_sizes = [sum(c in wanted[rank] for c in columns) for columns in computed]

    def __call__(self, layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """Turn (…, width / size) of the contiguous shard into (…, width / size) of every part."""
        columns = output.movedim(-1, 0)  # (width / size, …)
        ordered = columns.index_select(0, self.order.to(output.device))  # (width / size, …)
        received = all_to_all_single_autograd(
            ordered, self.receive_sizes, self.send_sizes, self.group
        )
        return received.movedim(0, -1).contiguous()  # (…, width / size)


def _shard_of(columns: range, number: int, size: int) -> range:
    width = len(columns) // size
    return columns[number * width : (number + 1) * width]


def replicate(part: nn.Module, mesh: DeviceMesh) -> None:
    """Turn every unsharded weight into a replicated DTensor.

    Optimizer, gradient clipping and checkpoints then handle DTensors only; the module computes
    with plain tensors.
    """
    parameters = [
        (module, name)
        for module in part.modules()
        for name, weight in module.named_parameters(recurse=False)
        if not isinstance(weight, DTensor)
    ]
    for module, name in parameters:
        weight = module.get_parameter(name)
        replicated = distribute_tensor(weight.data, mesh, [Replicate()], src_data_rank=None)
        module.register_parameter(name, nn.Parameter(replicated, weight.requires_grad))
    ReplacedParameters(part, parameters, DTensor.to_local)


class ReplacedParameters:
    """Replace parameters during a module's forward pass by differentiable functions of them.

    Args:
        part: The module.
        parameters: Its submodules and the names of their own parameters.
        function: Maps a parameter to the tensor that the forward pass uses.
    """

    def __init__(
        self,
        part: nn.Module,
        parameters: Iterable[tuple[nn.Module, str]],
        function: Callable[[Any], Tensor],
    ) -> None:
        self.parameters = list(parameters)
        self.function = function
        self.weights: list[Any] = []  # the parameters, during the forward pass
        part.register_forward_pre_hook(self._before)
        part.register_forward_hook(self._after, always_call=True)

    def _before(self, part: nn.Module, inputs: Any) -> None:
        self.weights = [module.get_parameter(name) for module, name in self.parameters]
        self._set([self.function(weight) for weight in self.weights])

    def _after(self, part: nn.Module, inputs: Any, output: Any) -> None:
        self._set(self.weights)
        self.weights = []

    def _set(self, weights: Iterable[Any]) -> None:
        for (module, name), weight in zip(self.parameters, weights, strict=True):
            module._parameters[name] = weight  # noqa: SLF001  # setattr takes Parameters only
