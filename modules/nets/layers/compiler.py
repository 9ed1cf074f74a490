"""When a layer is written out for torch.compile."""

import torch
from torch import Tensor


def compiles_training_on_cpu(x: Tensor) -> bool:
    """Whether what is done to x is being compiled, with gradients, for a CPU.

    There, and with pictures that are channels-last, it pays to write out what the compiler would
    take apart in a slow way: `batch_norm`, `relu` and `subsampling` do. Everywhere else torch's own
    layers run.
    """
    training = torch.compiler.is_compiling() and torch.is_grad_enabled()
    return training and x.device.type == "cpu"
