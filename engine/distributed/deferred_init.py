"""Build a network without its matrices, and compute each of them when its shard is made.

A network that is built within `DeferredInit` has its matrices on the meta device, which has shapes
and no memory. The random numbers of their initialization are drawn and thrown away, one matrix at a
time, and can be drawn again: each matrix gets the values that it would have without `DeferredInit`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC2701  # no public name
from torch.utils._pytree import tree_leaves  # noqa: PLC2701  # no public name

from engine.errors import UserError

aten = torch.ops.aten
OVERWRITING = {aten.normal_, aten.uniform_, aten.fill_, aten.zero_, aten.copy_}
WITHOUT_EFFECT = ("orthogonal_", "trunc_normal_", "dirac_", "sparse_")  # on the meta device
Weights = dict[str, Callable[[], Tensor]]  # full weights by name, computed when they are called


class DeferredInit(TorchDispatchMode):
    """Context manager: matrices of networks are created on the meta device.

    Other parameters and all buffers are small, and are created as usual; so are matrices that have
    values before they become parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unwritten: set[int] = set()  # storages of torch.empty
        self.histories: dict[int, list[Callable[[Tensor], Any]]] = {}  # storage → what was done
        self.scratch = torch.empty(0)
        self.parameters: dict[int, nn.Parameter] = {}  # kept alive, so that storages are unique

    def __enter__(self) -> "DeferredInit":
        self._register = register = nn.Module.register_parameter

        def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
            if parameter is not None and parameter.ndim > 1 and _key(parameter) in self.unwritten:
                empty = torch.empty_like(parameter, device="meta")
                parameter = nn.Parameter(empty, parameter.requires_grad)
                self.parameters[_key(parameter)] = parameter
                self.histories[_key(parameter)] = []
            register(module, name, parameter)

        nn.Module.register_parameter = register_on_meta  # type: ignore[assignment, method-assign]
        self._without_effect = {name: getattr(nn.init, name) for name in WITHOUT_EFFECT}
        for name in WITHOUT_EFFECT:
            setattr(nn.init, name, _refuse)
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        nn.Module.register_parameter = self._register  # type: ignore[method-assign]
        for name, function in self._without_effect.items():
            setattr(nn.init, name, function)

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        target = args[0] if args else None
        if operator._schema.is_mutable and isinstance(target, Tensor):  # noqa: SLF001 no public name
            if _key(target) in self.histories:
                return self._record(operator, target, args[1:], kwargs)
            self.unwritten.discard(_key(target))
        result = operator(*args, **kwargs)
        given = {_key(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and _key(tensor) not in given:  # it is not a view
                empty = operator is aten.empty.memory_format
                (self.unwritten.add if empty else self.unwritten.discard)(_key(tensor))
        return result

    def _record(self, operator: Any, target: Tensor, args: Any, kwargs: Any) -> Tensor:
        if any(isinstance(a, Tensor) and a.is_meta for a in tree_leaves((args, kwargs))):
            _refuse()
        history = self.histories[_key(target)]
        layout = target.shape, target.stride(), target.storage_offset()
        state = None
        if torch.Tag.nondeterministic_seeded in operator.tags:
            state = torch.get_rng_state()
            operator(self._scratch(target), *args, **kwargs)

        def repeat(full: Tensor) -> None:
            if state is not None:
                torch.set_rng_state(state)
            operator(full.as_strided(*layout), *args, **kwargs)

        if operator.overloadpacket in OVERWRITING and target.numel() == self._numel(target):
            history.clear()
        history.append(repeat)
        return target

    def _scratch(self, like: Tensor) -> Tensor:
        """Return a tensor to throw away; always of the same memory, which would be fragmented."""
        if self.scratch.numel() < like.numel() or self.scratch.dtype != like.dtype:
            self.scratch = torch.empty(like.numel(), dtype=like.dtype)
        return self.scratch[: like.numel()].view(like.shape)

    def _numel(self, target: Tensor) -> int:
        return self.parameters[_key(target)].numel()

    def weights(self, net: nn.Module) -> Weights:
        """Return the weights of a network that are on the meta device, by name."""
        return {
            name: self._function(parameter)
            for name, parameter in net.named_parameters()
            if parameter.is_meta
        }

    def _function(self, parameter: nn.Parameter) -> Callable[[], Tensor]:
        history = self.histories[_key(parameter)]

        def compute() -> Tensor:
            full = torch.empty(parameter.shape, dtype=parameter.dtype)
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                for repeat in history:
                    repeat(full)
            return full

        return compute


def _refuse(*args: Any, **kwargs: Any) -> Any:
    raise UserError(
        "trainer.strategy.meta_device: a matrix of this network is initialized from other values "
        "than random numbers and constants, which is not supported: leave it out."
    )


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # noqa: SLF001  # data_ptr is 0 on the meta device
