"""Multiply matrices in float8 during training, on GPUs that do so in hardware."""

import importlib.util

import lightning as L
import torch
from torch import nn

from engine.activation_checkpointing import find_blocks
from engine.errors import UserError

CAPABILITY = (8, 9)  # Ada; Hopper and Blackwell have more


class Float8(L.Callback):
    """Compute the linear layers of a network's blocks in float8 (Micikevicius et al. 2022).

    Inputs, weights and gradients of each product are scaled by their largest value and rounded to 8
    bits, by torchao; weights, optimizer states and checkpoints stay as they are. Layers whose sizes
    are not multiples of 16, and the output layer, are left in the precision of the Trainer. Faster
    for large layers and with `compile` only.

    Raises:
        UserError: At the start of fit: if the device has no float8 products, torchao is not
            installed, or the network has no blocks with such layers.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        check_float8(trainer.strategy.root_device)
        net = getattr(pl_module, "net", None)
        if not isinstance(net, nn.Module) or not use_float8(net):
            raise UserError(
                f"trainer.callbacks: Float8: {type(net or pl_module).__name__} has no blocks with "
                "linear layers whose sizes are multiples of 16: remove the callback."
            )


def check_float8(device: torch.device) -> None:
    """Check that float8 training is possible.

    Raises:
        UserError: If the device has no float8 products, or torchao is not installed.
    """
    on_gpu = device.type == "cuda"
    if not on_gpu or torch.cuda.get_device_capability(device) < CAPABILITY:
        found = torch.cuda.get_device_name(device) if on_gpu else f"device {device.type}"
        raise UserError(
            "trainer.callbacks: Float8 needs an NVIDIA GPU with float8 matrix products (Ada, "
            f"Hopper, Blackwell), but this run uses {found}. Use --config "
            "configs/trainer/bf16.yaml instead."
        )
    if importlib.util.find_spec("torchao") is None:
        raise UserError("trainer.callbacks: Float8 needs torchao: pip install 'stepladder[fp8]'.")


def use_float8(net: nn.Module, emulate: bool = False) -> list[nn.Linear]:
    """Convert the linear layers of a network's blocks in place; names of weights do not change.

    Args:
        net: A network with blocks, see `engine.activation_checkpointing.find_blocks`.
        emulate: Compute the same values without float8 products, on any device; for tests.

    Returns:
        The converted layers.
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    def fits(layer: nn.Module, name: str) -> bool:
        return not any(size % 16 for size in layer.weight.shape)  # type: ignore[union-attr]

    for block in find_blocks(net):
        convert_to_float8_training(
            block, module_filter_fn=fits, config=Float8LinearConfig(emulate=emulate)
        )
    return [m for m in net.modules() if isinstance(m, nn.Linear) and type(m) is not nn.Linear]
