"""Which precision a training should use on the machine at hand."""

import torch


def recommended_precision(accelerator: str) -> tuple[str, str]:
    """Lightning's name of a precision, and the trait of the machine that speaks for it.

    Args:
        accelerator: The trainer's: `auto`, `cpu`, `gpu`, `cuda`, …
    """
    if accelerator != "cpu" and torch.cuda.is_available():
        if has_native_bfloat16(torch.device("cuda")):
            return "bf16-mixed", "this GPU multiplies bfloat16 matrices in hardware"
        return "32-true", "this GPU has no bfloat16"
    if unit := bfloat16_instructions():
        return "bf16-mixed", f"this CPU multiplies bfloat16 in hardware ({unit})"
    return "32-true", f"this CPU multiplies no bfloat16 in hardware ({' or '.join(_units())})"


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are the fast ones."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bfloat16_instructions() is not None


def bfloat16_instructions() -> str | None:
    """The part of this CPU that multiplies bfloat16, the fastest; None where there is none."""
    return next((unit for unit, there in _units().items() if there), None)


def _units() -> dict[str, bool]:
    """What a CPU multiplies bfloat16 by, and whether this one has it: without, it emulates that.

    Against float32, a product takes a sixth of the time by AMX (Intel, since 2023) and less than
    half by AVX-512 (AMD since Zen 4), whose steps are 1.5 times as fast for a small GPT, 2 times
    for one of 10 M parameters.
    """
    names = {"AMX": "_is_amx_tile_supported", "AVX512_BF16": "_is_avx512_bf16_supported"}
    return {unit: getattr(torch.cpu, name, lambda: False)() for unit, name in names.items()}
