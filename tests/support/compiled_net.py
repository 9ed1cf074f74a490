"""Nets that are compiled as by torch.compile, but quickly: the graph runs as it is."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def compiled(net: nn.Module) -> tuple[nn.Module, list[str]]:
    """The net, compiled, and what its graph calls, as soon as it has run."""
    torch.compiler.reset()
    called: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        called.extend(str(node.target) for node in graph.graph.nodes if "call" in node.op)
        made: Callable = torch._dynamo.lookup_backend("aot_eager")(graph, inputs)
        return made

    net.compile(backend=backend, fullgraph=True)
    return net, called


def written_out(called: list[str]) -> bool:
    """Whether a part of the net has its own formula for the way back."""
    assert called
    return "autograd_function_apply" in called
