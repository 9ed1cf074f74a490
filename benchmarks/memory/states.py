"""Bytes of weights, gradients and optimizer state: the "model states" of the ZeRO paper."""

import torch
from torch import Tensor, nn

from benchmarks.memory.job import BF16, BUCKET, FLOAT, Job, Parts

# What is kept in CPU memory: FSDP2's CPUOffloadPolicy; Ren et al. 2021, "ZeRO-Offload", section 3.
OFFLOADED = {
    "fsdp_offload": ("weights", "gradients", "optimizer"),
    "zero2_offload": ("gradients", "optimizer"),
}


def states(job: Job) -> Parts:
    """Return the bytes of model states and communication buffers on one device."""
    moved = OFFLOADED.get(job.strategy, ())
    return {part: 0.0 if part in moved else size for part, size in all_states(job).items()}


def host_states(job: Job) -> Parts:
    """Return the bytes of model states that a process keeps in CPU memory instead."""
    parts = all_states(job)
    return {part: parts[part] for part in OFFLOADED.get(job.strategy, ())}


def all_states(job: Job) -> Parts:
    """Return the bytes of model states and communication buffers of one process."""
    P, N, w = job.parameters, job.devices, job.weight_bytes
    optimizer = optimizer_bytes(job)
    root, block = units(job.net)
    if job.sharding == "fsdp":
        return {
            "weights": w * P / N,
            "gradients": w * P / N,
            "optimizer": optimizer / N,
            # The root unit stays gathered; of the blocks, the current one and the prefetched one.
            "gathered weights": job.compute_bytes * (root + 2 * block),
            "gradient buffers": job.compute_bytes * max(root, block),
        }
    if job.sharding in ("zero2", "zero3"):
        # DeepSpeed computes with a low-precision copy and keeps float32 weights with the optimizer.
        c = job.compute_bytes
        stage3 = job.strategy == "zero3"
        return {
            "weights": c * P / (N if stage3 else 1),
            "gradients": c * P / N,
            "optimizer": (optimizer * FLOAT / w + FLOAT * P) / N,
            "gathered weights": c * (root + 2 * block) if stage3 else 0.0,
            "gradient buffers": c * min(P, BUCKET),
        }
    fraction = 1.0
    if job.strategy == "tensor_parallel":  # only the matrices of the blocks are sharded
        matrices = [p for p in blocks_of(job.net).parameters() if p.ndim >= 2]
        fraction = 1 - sum(p.numel() for p in matrices) / P * (1 - 1 / N)
    return {
        "weights": fraction * w * P,
        "gradients": fraction * w * P,
        "optimizer": fraction * optimizer,
        "gathered weights": 0.0,
        # DDP reduces gradients in separate buckets (gradient_as_bucket_view is off by default).
        "gradient buffers": float(w * P) if job.strategy == "ddp" else 0.0,
    }


def optimizer_bytes(job: Job) -> float:
    """Return the bytes of optimizer state, found by one step on meta tensors."""
    with torch.device("meta"):
        parameters = [
            nn.Parameter(torch.empty(p.shape, dtype=dtype_of_size(job.weight_bytes)))
            for p in job.net.parameters()
        ]
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    optimizer = (job.optimizer or torch.optim.AdamW)(parameters)
    for group in optimizer.param_groups:  # these kernels need a real device
        group.update({key: False for key in ("fused", "foreach") if key in group})
    optimizer.step()
    tensors = (
        v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor)
    )
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))


def dtype_of_size(size: int) -> torch.dtype:
    """Return the floating-point type with this number of bytes."""
    return torch.bfloat16 if size == BF16 else torch.float32


def blocks_of(net: nn.Module) -> nn.Module:
    """Return the blocks of a Transformer, or an empty list."""
    found = getattr(net, "blocks", None)
    return found if isinstance(found, nn.ModuleList) else nn.ModuleList()


def units(net: nn.Module) -> tuple[int, int]:
    """Return the number of parameters outside the blocks and in the largest block."""
    sizes = [sum(p.numel() for p in block.parameters()) for block in blocks_of(net).children()]
    total = sum(p.numel() for p in net.parameters())
    return total - sum(sizes), max(sizes, default=0)
