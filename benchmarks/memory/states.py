"""Weights, gradients, optimizer: "model states" in the words of the ZeRO paper."""

import torch
from torch import Tensor, nn

from benchmarks.memory.job import BF16, BUCKET, FLOAT, Job, Parts


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
        matrices = [p for p in blocks_of(job.net).parameters() if p.ndim >= 2]
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
            nn.Parameter(torch.empty(p.shape, dtype=dtype_of_size(job.weight_bytes)))
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


def dtype_of_size(size: int) -> torch.dtype:
    return torch.bfloat16 if size == BF16 else torch.float32


def blocks_of(net: nn.Module) -> nn.Module:
    found = getattr(net, "blocks", None)
    return found if isinstance(found, nn.ModuleList) else nn.ModuleList()


def units(net: nn.Module) -> tuple[int, int]:
    """Parameters outside the blocks, and of the largest block: what is gathered at once."""
    sizes = [sum(p.numel() for p in block.parameters()) for block in blocks_of(net).children()]
    whole = sum(p.numel() for p in net.parameters())
    return whole - sum(sizes), max(sizes, default=0)
