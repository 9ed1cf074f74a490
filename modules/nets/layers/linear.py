"""Linear layers that do not keep a few rows waiting, such as the last token of a text."""

import time
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW = 4  # rows; with more there is little to gain
LARGE = 2**17  # numbers; smaller matrices stay in the cache


class Linear(nn.Linear):
    """torch's own, with the same weights; see `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, I) to (…, O)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b, (…, I) to (…, O).

    With a few rows on a CPU all the time goes into reading W, which torch does on a single core.
    Without gradients, as where text is generated, W is cut into a group of outputs for each thread,
    and the groups are multiplied as a batch, on all cores, where that is the faster way.
    """
    if torch.is_grad_enabled() or not _worth_cutting(x, weight):
        return F.linear(x, weight, bias)
    threads = torch.get_num_threads()
    whole = weight.shape[0] // threads * threads
    y = cut(x, weight[:whole], threads)  # (…, O)
    if whole < weight.shape[0]:  # GPT-2 has 50,257 tokens
        y = torch.cat([y, F.linear(x, weight[whole:])], dim=-1)  # (…, O)
    return y if bias is None else y + bias


def cut(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """x Wᵀ by groups of W's rows, (…, I) to (…, O)."""
    columns = x.flatten(0, -2).T.expand(groups, -1, -1)  # (G, I, R)
    y = torch.bmm(weight.unflatten(0, (groups, -1)), columns)  # (G, O/G, R)
    return y.flatten(0, 1).T.reshape(*x.shape[:-1], -1)


def _worth_cutting(x: Tensor, weight: Tensor) -> bool:
    rows = x.numel() // x.shape[-1]
    return (
        0 < rows <= FEW
        and weight.numel() >= LARGE
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and type(weight) in (Tensor, nn.Parameter)  # neither sharded nor quantised
        and cutting_pays(torch.get_num_threads())
    )


@lru_cache
def cutting_pays(threads: int) -> bool:
    """Measure it, once and for some 0.1 s, with more weights than the caches hold.

    It must be faster by a third, so that the answer, and with it the last digit of what is
    computed, is the same in each process of a machine.
    """
    if threads == 1:
        return False
    with torch.inference_mode():
        weights: list[Tensor] = [torch.ones(1024, 1024) for _ in range(16)]  # 64 MiB
        x = torch.ones(1, 1024)
        ways: list[Any] = [F.linear, lambda x, weight: cut(x, weight, threads)]
        seconds: list[list[float]] = [[], []]
        for _ in range(8):
            for way, seen in zip(ways, seconds, strict=True):
                started = time.perf_counter()
                for weight in weights:
                    way(x, weight)
                seen.append(time.perf_counter() - started)
    as_it_is, in_groups = map(min, seconds)  # what else the machine does only adds to it
    return as_it_is > 4 / 3 * in_groups
