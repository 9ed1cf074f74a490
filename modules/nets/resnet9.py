"""ResNet-9: few and wide residual blocks, for small images.

After Page, "How to train your ResNet" (2018), who trains such a network on CIFAR-10 in seconds.
ResNet-20 spends most of its time in narrow layers at full resolution. New here: the first
convolution is pooled immediately, each stage has one block of two wide convolutions, and global
max-pooling detects whether a feature occurs anywhere, not how often.
"""

from torch import Tensor, nn

from modules.nets.layers.convolution import init_weights_for_relu
from modules.nets.layers.dropout import Dropout


def layer(
    in_channels: int, out_channels: int, kernel_size: int = 3, pooled: bool = False
) -> nn.Sequential:
    """Return `convolution → (2x2 max-pool) → batch norm → ReLU`.

    Max-pooling commutes with ReLU; before it and the norm, it quarters their work.
    """
    padding = kernel_size // 2
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False)
    pooling = [nn.MaxPool2d(2)] if pooled else []
    return nn.Sequential(convolution, *pooling, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """y = x + f(x) with f = two layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(layer(channels, channels), layer(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)  # (B, C, H, W)


class ResNet9(nn.Module):
    """A pooled 5x5 convolution, two stages of a convolution and a residual block, a linear layer.

    A 28x28 image is 14x14 in the first stage and 7x7 in the second.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of an image, 1 for grayscale and 3 for RGB.
        image_size: Height and width of an image in pixels, at least 4.
        width: Channels of the first convolution; the stages have 2 and 4 times as many.
        dropout: Dropout probability before the linear layer, in [0, 1).

    Raises:
        ValueError: If the image is too small to be pooled twice.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
        width: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if image_size < 4:
            raise ValueError(
                f"ResNet9: images of {image_size}x{image_size} pixels are too small to be pooled "
                "twice; they must be at least 4x4."
            )
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.image_size = image_size
        self.width = width
        self.dropout = dropout

        self.first = layer(in_channels, width, kernel_size=5, pooled=True)
        self.stages = nn.Sequential(
            layer(width, 2 * width),
            Residual(2 * width),
            nn.MaxPool2d(2),
            layer(2 * width, 4 * width),
            Residual(4 * width),
        )
        self.head = nn.Sequential(
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            Dropout(dropout),
            nn.Linear(4 * width, num_classes),
        )
        init_weights_for_relu(self)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.first(inputs)  # (B, C, H, W) -> (B, width, H / 2, W / 2)
        x = self.stages(x)  # (B, 4 · width, H / 4, W / 4)
        logits: Tensor = self.head(x)  # (B, num_classes)
        return logits
