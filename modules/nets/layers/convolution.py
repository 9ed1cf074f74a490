"""What the convolutional networks share: conv → batch norm → ReLU, and weight initialization."""

from torch import nn


def conv_norm_relu(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    stride: int = 1,
    padding: int | None = None,
    batch_norm: bool = True,
) -> list[nn.Module]:
    """Return the layers `Conv2d → (BatchNorm2d) → ReLU`.

    Batch norm (Ioffe & Szegedy 2015) normalizes each channel over the batch, then scales and shifts
    it: y = γ · (x - E[x]) / sqrt(Var[x] + ε) + β. It removes any bias of the convolution, which
    therefore has none.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Height and width of the filters, odd.
        stride: Stride of the convolution in pixels.
        padding: Zeros added on each side; by default as many as keep the size at stride 1.
        batch_norm: Whether to add batch norm.
    """
    padding = kernel_size // 2 if padding is None else padding
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=not batch_norm)
    ]
    if batch_norm:
        layers.append(nn.BatchNorm2d(out_channels))
    return [*layers, nn.ReLU(inplace=True)]


def init_weights_for_relu(net: nn.Module) -> None:
    """Initialize a deep ReLU network so that the signal's variance stays constant (He et al. 2015).

    A ReLU halves the second moment, which weights of variance 2 / n compensate. n is the fan-in of
    linear layers and, as in torchvision, the fan-out of convolutions, which keeps the gradients'
    variance constant. With torch's default of 1 / (3 n) the variance shrinks to a sixth per layer.
    Biases start at 0; the last layer starts small, so that all classes are about equally likely.
    """
    last = None
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            last = module
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    if last is not None:
        nn.init.normal_(last.weight, std=0.01)
