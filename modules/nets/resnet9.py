"""ResNet-9: the fewest residual blocks that do the work, wide where a picture is small.

After Page, "How to train your ResNet" (2018), which trains such a net on CIFAR-10 in seconds. The
ResNet below spends most of its time on many thin layers at the full size of the picture. Here the
first convolution is pooled at once and each stage has one block of two wide convolutions; at the
end the maximum over the picture asks whether a feature is anywhere, not how often.
"""

from torch import Tensor, nn

from modules.nets.layers.batch_norm import BatchNorm2d
from modules.nets.layers.convolution import init_weights_for_relu
from modules.nets.layers.dropout import Dropout
from modules.nets.layers.relu import ReLU
from modules.nets.layers.subsampling import MaxPool2d


def layer(fan_in: int, fan_out: int, kernel_size: int = 3, pooled: bool = False) -> nn.Sequential:
    """`convolution → (2x2 max-pool) → batch norm → ReLU`.

    Pooling comes first because what follows then has a quarter of the work; a ReLU after the
    maximum is the same as one before it.
    """
    convolution = nn.Conv2d(fan_in, fan_out, kernel_size, padding=kernel_size // 2, bias=False)
    pooling = [MaxPool2d(2)] if pooled else []
    return nn.Sequential(convolution, *pooling, BatchNorm2d(fan_out), ReLU(inplace=True))


class Residual(nn.Module):
    """y = x + f(x) with f = two layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(layer(channels, channels), layer(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)  # (B, C, H, W)


class ResNet9(nn.Module):
    """A pooled 5x5 convolution, two stages of a convolution and a residual block, a linear layer.

    A 28x28 picture is 14x14 in the first stage and 7x7 in the second.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of a picture, 1 for grey and 3 for RGB.
        image_size: Height and width of a picture in pixels, at least 4.
        width: Channels of the first convolution; the stages have 2 and 4 times as many.
        dropout: Probability in [0, 1) of zeroing a feature before the linear layer.

    Raises:
        ValueError: If the picture is too small to be pooled twice.
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
                f"ResNet9: pictures of {image_size}x{image_size} pixels are too small to be "
                "pooled twice; 4x4 is the least."
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
            MaxPool2d(2),
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
        """Pictures (B, C, height, width) to logits (B, num_classes)."""
        x = self.first(inputs)  # (B, width, H / 2, W / 2)
        x = self.stages(x)  # (B, 4 · width, H / 4, W / 4)
        logits: Tensor = self.head(x)  # (B, num_classes)
        return logits
