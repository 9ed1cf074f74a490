"""Which precision a training should use on the machine at hand."""

import torch


def recommended_precision(accelerator: str) -> tuple[str, str]:
    """Lightning's name of a precision, and the trait of the machine that speaks for it.

    Args:
        accelerator: The trainer's: `auto`, `cpu`, `gpu`, `cuda`, …
    """
    if accelerator != "cpu" and torch.cuda.is_available():
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16-mixed", "this GPU multiplies bfloat16 matrices in hardware"
        return "32-true", "this GPU has no bfloat16"
    # Without AMX a CPU emulates bfloat16 products or gains too little to make up for the casts.
    if getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)():
        return "bf16-mixed", "this CPU multiplies bfloat16 matrices in hardware (AMX)"
    return "32-true", "this CPU has no bfloat16 matrix unit (AMX)"
