"""Recommended precision for the hardware at hand."""

import torch


def recommended_precision(accelerator: str) -> tuple[str, str]:
    """Return Lightning's name of the recommended precision, and the reason.

    Args:
        accelerator: The trainer's `accelerator`: `auto`, `cpu`, `gpu`, `cuda`, …
    """
    if accelerator != "cpu" and torch.cuda.is_available():
        if has_native_bfloat16(torch.device("cuda")):
            return "bf16-mixed", "this GPU has native bfloat16 support"
        return "32-true", "this GPU has no native bfloat16 support"
    if instructions := bfloat16_instructions():
        return "bf16-mixed", f"this CPU has native bfloat16 support: {instructions}"
    return "32-true", "this CPU has no native bfloat16 support"


def is_missing_kernel(error: Exception) -> bool:
    """Return whether oneDNN lacks an operation on this CPU, as bfloat16 LSTMs below AVX-512.

    It raises a RuntimeError, and only the text says why.
    """
    return isinstance(error, RuntimeError) and "could not create a primitive" in str(error)


def has_native_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bfloat16_instructions() is not None


def bfloat16_instructions() -> str | None:
    """Return the CPU's fastest instruction set for bfloat16 matrix products, or None.

    Compared with float32, a product takes a sixth of the time with AMX (Intel, since 2023) and less
    than half with AVX512_BF16 (AMD, since Zen 4). Other CPUs emulate bfloat16.
    """
    queries = {"AMX": "_is_amx_tile_supported", "AVX512_BF16": "_is_avx512_bf16_supported"}
    for name, query in queries.items():
        if getattr(torch.cpu, query, lambda: False)():
            return name
    return None
