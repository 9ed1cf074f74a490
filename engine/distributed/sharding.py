"""Spread a task's net over the processes of `engine.distributed.ModelParallel`: FSDP2, tensor parallelism, both.

The door: a net is a plain module, and says by two plain things how it may be spread. Neither is
needed; a net without them is cut as one piece.

    blocks                   an nn.ModuleList: FSDP gathers the weights of one block at a time
    tensor_parallel_plan()   which matrices of every block may be cut, and where; see GPT

FSDP (Zhao et al. 2023; Rajbhandari et al. 2020, stage 3) keeps of every weight, gradient and
optimizer state a share on each process, and gathers a block's weights when it is its turn. Tensor
parallelism (Shoeybi et al. 2019, "Megatron-LM", section 3) also shares the work on each row of a
batch: a matrix is cut by columns, the next by rows, and one sum over the processes joins them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Protocol

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, distributed, nn
from torch.distributed._functional_collectives import (  # noqa: PLC2701  # differentiable
    all_to_all_single_autograd,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)

# The matrix of a linear layer → ROWS, or the parts of its output, which are cut one by one, each
# as a number of units that stay whole: queries, keys and values as heads.
ROWS = "rows"
Plan = Mapping[str, str | Sequence[int]]


class TensorParallelNet(Protocol):
    """A net whose blocks may be cut."""

    blocks: nn.ModuleList

    def tensor_parallel_plan(self) -> Plan: ...


def shard(task: L.LightningModule) -> None:
    """What a task does in `configure_model`: nothing, unless it is trained by `ModelParallel`.

    Args:
        task: Its attribute `net` is spread, in place and once.

    Raises:
        MisconfigurationException: If the net can't be cut as the strategy asks.
    """
    mesh = task.device_mesh
    net: nn.Module = task.net  # type: ignore[assignment]
    if mesh is None or has_dtensors(net):
        return
    if mesh["tensor_parallel"].size() > 1:
        cut(net, mesh["tensor_parallel"])
        if mesh["data_parallel"].size() == 1:
            return
    for weight in net.parameters():  # FSDP takes no channels-last ones
        weight.data = weight.data.contiguous()
    mixed = task.trainer.precision == "bf16-mixed"
    for part in fsdp_modules(net):
        gather_in_halves = mixed and part is not net
        if gather_in_halves:
            _norms_in_full(part)
        name = type(part).__name__
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if gather_in_halves else None,
            reduce_dtype=torch.float32 if gather_in_halves else None,
            cast_forward_inputs=False,
        )
        fully_shard(part, mesh=mesh["data_parallel"], mp_policy=policy)
        type(part).__name__ = name  # that of a class of its own: FSDPGPT
    if any(True for _ in net.buffers()):
        net.register_forward_pre_hook(_same_buffers)


def has_dtensors(net: nn.Module) -> bool:
    """Whether this process has only a share of the net (of which all may be gathered just now)."""
    return isinstance(net, FSDPModule) or any(isinstance(w, DTensor) for w in net.parameters())


def fsdp_modules(net: nn.Module) -> list[nn.Module]:
    """The blocks of a net, and the net itself last."""
    blocks = getattr(net, "blocks", None)
    return [*blocks, net] if isinstance(blocks, nn.ModuleList) else [net]


def _norms_in_full(block: nn.Module) -> None:
    """A block's weights are gathered in bfloat16, and its norms compute in float32 all the same.

    Autocast would cast the matrices in any case, and keep the copies until the backward pass: the
    whole net on every process, which FSDP is to avoid. Gathered weights it leaves alone, and they
    travel at half the price. Gradients are summed in float32.
    """
    for module in block.modules():
        own = dict(module.named_parameters(recurse=False))
        if own and all(weight.ndim < 2 for weight in own.values()):
            places = [(module, name) for name in own]
            StandIns(module, places, Tensor.float)


def _same_buffers(net: nn.Module, inputs: Any) -> None:
    """The running means of a batch norm are those of the first process, as DDP has it."""
    for buffer in net.buffers():
        distributed.broadcast(buffer, 0)


# Tensor parallelism.


def cut(net: nn.Module, mesh: DeviceMesh) -> None:
    """Cut the matrices of a net's plan; every process holds all the rest.

    Args:
        net: A TensorParallelNet.
        mesh: The processes that share one row of a batch, in one dimension.

    Raises:
        MisconfigurationException: If the net has no plan, or something can't be divided.
    """
    if not hasattr(net, "tensor_parallel_plan"):
        raise MisconfigurationException(
            f"{type(net).__name__} does not say how its matrices could be cut, so it can't be "
            "trained with tensor parallelism: take --config configs/trainer/fsdp.yaml, or give it "
            "a `tensor_parallel_plan` as modules.nets.GPT has it."
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
                layer.register_forward_hook(Regroup(layer.out_features, parts, mesh))
    for part in fsdp_modules(net):
        replicate(part, mesh)


def _check_divides(net: nn.Module, plan: Plan, size: int) -> None:
    for name, parts in plan.items():
        if parts != ROWS and any(int(part) % size for part in parts):
            sizes = ", ".join(map(str, dict.fromkeys(parts)))
            raise MisconfigurationException(
                f"tensor parallelism among {size} processes: {name} of {type(net).__name__} has "
                f"parts of {sizes} heads or channels, and {size} must divide each; choose other "
                "sizes of the net, or fewer --trainer.strategy.tensor_parallel_size."
            )


class Regroup:
    """Give each process its share of every part of a layer's outputs.

    A layer that makes queries, keys and values by one matrix has them one below the other. Cut
    straight, the first process would have all queries, the last all values. Weights stay cut that
    way, so that a checkpoint is that of one process; the outputs change places instead.

    Args:
        width: Outputs of the whole layer.
        parts: Units of each part.
        mesh: The processes, in one dimension.
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
                for column in _share(range(end - units * unit, end), number, size)
            }
            for number in range(size)
        ]
        made = [_share(range(width), number, size) for number in range(size)]
        mine = made[rank]
        # In order of who gets them; and each arrives in the order of the whole layer.
        leave = [[c - mine.start for c in mine if c in columns] for columns in wanted]
        self.order = torch.tensor([column for columns in leave for column in columns])
        self.sent = [len(columns) for columns in leave]
        self.received = [sum(c in wanted[rank] for c in columns) for columns in made]

    def __call__(self, layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """(…, width / size) of the straight cut to (…, width / size) of every part."""
        columns = output.movedim(-1, 0)  # (width / size, …)
        ready = columns.index_select(0, self.order.to(output.device))  # (width / size, …)
        got = all_to_all_single_autograd(ready, self.received, self.sent, self.group)
        return got.movedim(0, -1).contiguous()  # (…, width / size)


def _share(columns: range, number: int, size: int) -> range:
    width = len(columns) // size
    return columns[number * width : (number + 1) * width]


def replicate(part: nn.Module, mesh: DeviceMesh) -> None:
    """Make a DTensor of every weight that is not cut: each process has it whole.

    Optimizer, clipping and checkpoints then meet one kind of tensor only; the module computes with
    plain ones.
    """
    places = [
        (module, name)
        for module in part.modules()
        for name, weight in module.named_parameters(recurse=False)
        if not isinstance(weight, DTensor)
    ]
    for module, name in places:
        weight = module.get_parameter(name)
        spread = distribute_tensor(weight.data, mesh, [Replicate()], src_data_rank=None)
        module.register_parameter(name, nn.Parameter(spread, weight.requires_grad))
    StandIns(part, places, DTensor.to_local)


class StandIns:
    """While a module computes, others stand in for some of its weights, made of them.

    Args:
        part: The module.
        places: Modules in it and the names of their own weights.
        make: Makes a stand-in of a weight; gradients flow through it.
    """

    def __init__(
        self,
        part: nn.Module,
        places: Iterable[tuple[nn.Module, str]],
        make: Callable[[Any], Tensor],
    ) -> None:
        self.places = list(places)
        self.make = make
        self.weights: list[Any] = []
        part.register_forward_pre_hook(self._before)
        part.register_forward_hook(self._after, always_call=True)

    def _before(self, part: nn.Module, inputs: Any) -> None:
        self.weights = [module.get_parameter(name) for module, name in self.places]
        self._set([self.make(weight) for weight in self.weights])

    def _after(self, part: nn.Module, inputs: Any, output: Any) -> None:
        self._set(self.weights)
        self.weights = []

    def _set(self, weights: Iterable[Any]) -> None:
        for (module, name), weight in zip(self.places, weights, strict=True):
            module._parameters[name] = weight  # noqa: SLF001  # setattr takes Parameters only
