"""Count the FLOPs of a network and measure the peak FLOP/s of a device."""

import time
from copy import deepcopy
from functools import cache
from typing import Any
from warnings import catch_warnings

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC2701  # no public name
from torch.utils._pytree import tree_map_only  # noqa: PLC2701  # no public name
from torch.utils.flop_counter import FlopCounterMode

from engine.activation_checkpointing import remove_checkpointing


def synchronized_time(device: torch.device) -> float:
    """Return the time in seconds at which all work submitted to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def fake_copy(net: nn.Module) -> nn.Module:
    """Return a copy of a network with fake tensors, which have shapes but no data."""
    fakes: dict[int, Any] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        for tensor in (*net.parameters(), *net.buffers()):
            fake = _empty_like(tensor)
            if isinstance(tensor, nn.Parameter):
                fake = nn.Parameter(fake, tensor.requires_grad)
            fakes[id(tensor)] = fake
        copy = deepcopy(net, fakes)
    remove_checkpointing(copy)  # the FLOPs of a network do not include what is computed twice
    return copy


def count_flops(fake_net: nn.Module, inputs: Any) -> float:
    """Return the FLOPs of a forward and a backward pass.

    Args:
        fake_net: Network made by `fake_copy`.
        inputs: Inputs of the network; only their shapes and dtypes matter.
    """
    fake_mode = next(fake_net.parameters()).fake_mode  # type: ignore[attr-defined]
    counter = FlopCounterMode(display=False)
    with (
        catch_warnings(action="ignore"),  # mkldnn.flags warns about Intel GPUs
        torch.backends.mkldnn.flags(enabled=False),  # its LSTM kernel hides the matrix products
        torch.random.fork_rng(devices=[]),
        fake_mode,
    ):
        inputs = tree_map_only(Tensor, _empty_like, inputs)
        with counter:
            output = fake_net(inputs)
            output = output[0] if isinstance(output, tuple) else output
            output.sum().backward()
    return float(counter.get_total_flops())


def _empty_like(tensor: Tensor) -> Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=dtype, device="cpu")


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return the peak FLOP/s of a device: of a known GPU from a table, otherwise measured."""
    return specified_peak_flops(device, dtype) or measured_peak_flops(dtype, str(device))


def specified_peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Return the peak FLOP/s of a GPU in Lightning's table, or None if it is not listed."""
    if device.type != "cuda":
        return None
    with catch_warnings(action="ignore"):  # about GPUs that are not listed
        flops = get_available_flops(device, dtype)
    return float(flops) if flops else None


@cache
def measured_peak_flops(dtype: torch.dtype, device: str = "cpu") -> float:
    """Return the FLOP/s of the fastest matrix product among the shapes of a GPT."""
    best = 0.0
    on_gpu = torch.device(device).type == "cuda"
    shapes = ((3072, 384, 1152), (3072, 384, 1536), (2048, 2048, 2048), (8192, 8192, 8192))
    generator = torch.Generator(device).manual_seed(0)  # leaves the global random state alone
    for m, k, n in shapes if on_gpu else shapes[:3]:
        a = torch.randn(m, k, device=device, generator=generator).to(dtype)
        b = torch.randn(k, n, device=device, generator=generator).to(dtype)
        for _ in range(10):
            start = synchronized_time(a.device)
            a @ b
            best = max(best, 2 * m * k * n / (synchronized_time(a.device) - start))
    return best
