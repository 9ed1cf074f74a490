"""Two processes shard a network on the meta device and measure their memory; run by `start`.

The working directory holds `llama`, a folder of the Hugging Face format. Every process writes
`loaded-<rank>.json`: bytes of the network, and the growth of its peak memory while it was built and
sharded, on the meta device and as usual; and whether the shards are equal.
"""

import ctypes
import gc
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import distributed, nn

sys.path[:0] = [str(Path(__file__).parent.parent.parent)]  # this file is run as a program

from cli.command_line import build_on_meta_device  # noqa: E402
from engine.distributed.sharding import shard  # noqa: E402
from modules.nets import GPT, PretrainedCausalLM  # noqa: E402

SHAPE = {"vocab_size": 1000, "context": 64, "num_layers": 24, "num_heads": 8, "dim": 512}
NETS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gpt": (GPT, SHAPE | {"bias": False}),
    "llama": (PretrainedCausalLM, {"pretrained": "llama"}),
}


def memory(key: str) -> int:
    """Return VmRSS or VmHWM, the resident memory of this process and its peak, in bytes."""
    (line,) = (n for n in Path("/proc/self/status").read_text().splitlines() if n.startswith(key))
    return 1024 * int(line.split()[1])


def growth_while(function: Callable[[], nn.Module]) -> tuple[nn.Module, int]:
    """Return a network and the growth of the peak memory while it is made."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # return freed memory to the system
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = memory("VmRSS")
    return function(), memory("VmHWM") - before


def build(cls: Any, arguments: dict[str, Any], on_meta_device: bool, mesh: Any) -> nn.Module:
    torch.manual_seed(0)
    net = (build_on_meta_device if on_meta_device else lambda c, **a: c(**a))(cls, **arguments)
    trainer = SimpleNamespace(precision="32-true", strategy=SimpleNamespace(cpu_offload=False))
    device = torch.device("cpu")
    shard(SimpleNamespace(net=net, device_mesh=mesh, trainer=trainer, device=device))  # type: ignore[arg-type]
    return net


def work() -> None:
    distributed.init_process_group("gloo")
    names = ("data_parallel", "tensor_parallel")
    mesh = distributed.device_mesh.init_device_mesh("cpu", (2, 1), mesh_dim_names=names)
    build(GPT, SHAPE | {"num_layers": 1}, True, mesh)  # imports what FSDP needs
    results = {}
    for name, (cls, arguments) in NETS.items():
        pairs = [growth_while(partial(build, cls, arguments, on, mesh)) for on in (True, False)]
        nets, growth = [net for net, _ in pairs], [size for _, size in pairs]
        equal = all(
            torch.equal(a.to_local(), b.to_local())  # type: ignore[attr-defined]
            for a, b in zip(*(net.parameters() for net in nets), strict=True)
        )
        size = sum(weight.numel() for weight in nets[0].parameters()) * 4
        tokens = torch.arange(8)[None]
        logits = [net(tokens)[0] for net in nets]
        equal = equal and torch.equal(*logits)
        results[name] = {"size": size, "growth": growth, "equal": equal}
        del pairs, nets, logits
    Path(f"loaded-{os.environ['RANK']}.json").write_text(json.dumps(results))
    distributed.destroy_process_group()


if __name__ == "__main__":
    os.environ["RANK"] = os.environ["LOCAL_RANK"]
    torch.set_num_threads(1)
    work()
