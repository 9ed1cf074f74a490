"""The table of docs/scaling.md: memory from one machine to many."""

from typing import Any

import torch

from benchmarks.memory.activations import activations, peak
from benchmarks.memory.job import GIB, Job
from benchmarks.memory.states import states
from modules.nets import GPT

SHAPES = {  # layers, heads, width, context
    "10.7 M": (6, 6, 384, 256),
    "124 M": (12, 12, 768, 1024),
    "355 M": (24, 16, 1024, 1024),
    "774 M": (36, 20, 1280, 1024),
    "1.6 B": (48, 25, 1600, 1024),
    "6.7 B": (32, 32, 4096, 2048),  # this and the next: sizes of Brown et al. 2020
    "13 B": (40, 40, 5120, 2048),
    "70 B": (80, 64, 8192, 4096),  # Llama 2 (Touvron et al. 2023)
    "175 B": (96, 96, 12288, 2048),
}
LLAMA = {"positions": "rotary", "norm": "rms", "activation": "swiglu", "tie_embeddings": False}
GROUPED = {"num_kv_heads": 8, "hidden_size": 28672}
RECOMPUTED: dict[str, Any] = {"checkpointing": "full", "loss_chunk_size": 2048}
PLAN = (  # size, machine, devices, strategy, rows per device, accumulated batches, recomputed
    ("10.7 M", "laptop, CPU", 1, "single", 12, 5, False),
    ("124 M", "1 x 24 GB", 1, "single", 8, 60, False),
    ("124 M", "1 x 80 GB", 1, "single", 32, 15, False),
    ("124 M", "8 x 40 GB", 8, "ddp", 12, 5, False),
    ("355 M", "8 x 80 GB", 8, "ddp", 15, 4, False),
    ("774 M", "8 x 80 GB", 8, "ddp", 6, 10, False),
    ("774 M", "8 x 80 GB", 8, "zero2", 6, 10, False),
    ("1.6 B", "8 x 80 GB", 8, "fsdp", 6, 10, False),
    ("1.6 B", "8 x 8 x 80 GB", 64, "fsdp", 8, 1, False),
    ("6.7 B", "8 x 8 x 80 GB", 64, "fsdp", 4, 4, False),
    ("6.7 B", "8 x 8 x 80 GB", 64, "zero3", 4, 4, False),
    ("13 B", "16 x 8 x 80 GB", 128, "fsdp", 2, 4, False),
    ("13 B", "64 x 8 x 80 GB", 512, "fsdp", 2, 1, False),
    ("1.6 B", "1 x 80 GB", 1, "single", 16, 30, True),
    ("6.7 B", "1 x 80 GB", 1, "zero2_offload", 16, 64, True),
    ("6.7 B", "1 x 24 GB", 1, "fsdp_offload", 4, 256, True),
    ("6.7 B", "8 x 80 GB", 8, "fsdp", 16, 8, True),
    ("13 B", "8 x 24 GB", 8, "fsdp_offload", 2, 64, True),
    ("13 B", "8 x 8 x 80 GB", 64, "fsdp", 16, 1, True),
    ("70 B", "64 x 8 x 80 GB", 512, "fsdp", 2, 1, True),
    ("175 B", "64 x 8 x 80 GB", 512, "fsdp", 3, 1, True),
)


def planned(
    size: str,
    devices: int = 1,
    strategy: str = "single",
    rows: int = 1,
    accumulate: int = 1,
    recomputed: bool = False,
) -> Job:
    """Return the job of a GPT without dropout in bfloat16 on GPUs (the smallest: float32, CPU).

    `recomputed`: with activation checkpointing of all blocks and a loss in chunks.
    """
    layers, heads, dim, context = SHAPES[size]
    on_cpu = size == "10.7 M"
    vocab_size = 65 if on_cpu else 50_304
    with torch.device("meta"):
        options: dict[str, Any] = LLAMA | GROUPED if size == "70 B" else {}
        net = GPT(vocab_size, context, layers, heads, dim, bias=False, **options)
    precision, device = ("32-true", "cpu") if on_cpu else ("bf16-mixed", "cuda")
    more = RECOMPUTED if recomputed else {}
    return Job(net, rows, precision, None, strategy, devices, accumulate, device, **more)


def plan() -> str:
    """Return the table as Markdown."""
    head = "size | machine | strategy | rows per device x batches | tokens per step | recomputed"
    lines = [f"| {head} | states | activations | peak |", "|" + " --- |" * 9]
    for size, machine, devices, strategy, rows, accumulate, recomputed in PLAN:
        job = planned(size, devices, strategy, rows, accumulate, recomputed)
        tokens = rows * devices * accumulate * SHAPES[size][3]
        sizes = (sum(states(job).values()), sum(activations(job).values()), peak(job))
        cells = [size, machine, strategy, f"{rows} x {accumulate}", f"{tokens:,}"]
        cells.append("yes" if recomputed else "no")
        lines.append("| " + " | ".join([*cells, *(f"{s / GIB:.1f} GiB" for s in sizes)]) + " |")
    return "\n".join(lines)
