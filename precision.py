"""Which precision a training should use on the machine at hand."""

import torch


def recommended_precision(accelerator: str) -> tuple[str, str]:
    """Lightning's name of a precision, and the trait of the machine that speaks for it.

    Args:
        accelerator: The trainer's: `auto`, `cpu`, `gpu`, `cuda`, …
    """
    if accelerator != "cpu" and torch.cuda.is_available():
        if multiplies_bfloat16(torch.device("cuda")):
            return "bf16-mixed", "this GPU multiplies bfloat16 matrices in hardware"
        return "32-true", "this GPU has no bfloat16"
    if multiplies_bfloat16(torch.device("cpu")):
        return "bf16-mixed", "this CPU multiplies bfloat16 matrices in hardware (AMX)"
    return "32-true", "this CPU has no bfloat16 matrix unit (AMX)"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are the fast ones."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Without AMX a CPU emulates bfloat16 products or gains too little to make up for the casts.
    return device.type == "cpu" and getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
