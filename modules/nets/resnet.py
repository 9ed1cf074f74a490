"""ResNet: each block adds to what came in, so a net of any depth can at least pass it on.

He, Zhang, Ren & Sun, "Deep residual learning for image recognition" (2015) and, for the order with
the activation first, "Identity mappings in deep residual networks" (2016). Plain nets like VGG get
worse beyond some twenty layers, on their training data too: the layers added could copy their
input, but gradient descent does not find out how. Here copying is what a block does before it has
learned anything, y = x + f(x), and the gradient takes the same way back past all of them.
"""

from typing import NamedTuple

from torch import Tensor, nn

from modules.nets.layers.batch_norm import BatchNorm2d
from modules.nets.layers.convolution import conv_norm_relu, init_weights_for_relu
from modules.nets.layers.relu import ReLU, relu
from modules.nets.layers.subsampling import every_other


class Family(NamedTuple):
    """What nets of one depth are made of."""

    blocks: tuple[int, ...]  # in each stage
    width: int  # channels of the 3x3 convolutions in the first stage; doubles from stage to stage
    bottleneck: bool = False  # convolutions 1x1, 3x3, 1x1 in a block instead of two of 3x3
    projection: bool = True  # shortcuts where the shape changes: option B, else A


# Table 1 of the paper for ImageNet; section 4.2 for CIFAR-10, 6n + 2 layers. The shortcuts are the
# paper's as well: B on ImageNet, and A on CIFAR-10, where they shall cost no weights, so that the
# plain nets to compare with have as many (0.27, 0.46, 0.85 million; B makes it 0.47 and 0.86).
FAMILIES = {
    18: Family((2, 2, 2, 2), 64),
    34: Family((3, 4, 6, 3), 64),
    50: Family((3, 4, 6, 3), 64, bottleneck=True),
    20: Family((3, 3, 3), 16, projection=False),
    32: Family((5, 5, 5), 16, projection=False),
    56: Family((9, 9, 9), 16, projection=False),
}


class PaddingShortcut(nn.Module):
    """Option A: a shortcut without weights; every other pixel, and zeros as the new channels."""

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.new_channels = new_channels

    def forward(self, x: Tensor) -> Tensor:
        return every_other(x, self.new_channels)  # (B, C', H / 2, W / 2)


def branch_layers(fan_in: int, width: int, stride: int, bottleneck: bool) -> list[nn.Module]:
    """The layers of f: `conv → norm → ReLU` twice, or three times with a bottleneck."""
    if not bottleneck:
        return conv_norm_relu(fan_in, width, stride=stride) + conv_norm_relu(width, width)
    # The 3x3 convolution works on a quarter of the channels. It has the stride, where the paper
    # gave it to the 1x1 before, which then never saw three of four pixels ("ResNet v1.5").
    return [
        *conv_norm_relu(fan_in, width, kernel_size=1),
        *conv_norm_relu(width, width, stride=stride),
        *conv_norm_relu(width, 4 * width, kernel_size=1),
    ]


def shortcut_layers(
    fan_in: int, fan_out: int, stride: int, projection: bool, norm: bool
) -> list[nn.Module]:
    """The other way through a block: nothing at all where the shape stays."""
    if fan_in == fan_out and stride == 1:
        return []
    if not projection:
        return [PaddingShortcut(fan_out - fan_in)]  # where the stride is 2
    convolution = nn.Conv2d(fan_in, fan_out, kernel_size=1, stride=stride, bias=False)
    return [convolution, BatchNorm2d(fan_out)] if norm else [convolution]


class Block(nn.Module):
    """y = ReLU(shortcut(x) + f(x)) with f = conv → norm → ReLU → … → conv → norm (2015, eq. 1)."""

    def __init__(self, branch: list[nn.Module], shortcut: list[nn.Module]) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch[:-1])  # its last ReLU comes after the sum
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.branch(x) + self.shortcut(x), inplace=True)  # (B, C', H', W')


class PreActivationBlock(nn.Module):
    """y = shortcut(x) + f(x) with f = norm → ReLU → conv → … → norm → ReLU → conv (2016, eq. 5).

    Between two blocks nothing stands in the way of x. Only at the first of a stage, where x must
    change its shape anyhow, norm and ReLU come before the two ways part (2016, appendix).
    """

    def __init__(
        self,
        shared: list[nn.Module],
        before: list[nn.Module],
        branch: list[nn.Module],
        shortcut: list[nn.Module],
    ) -> None:
        super().__init__()
        self.shared = nn.Sequential(*shared)
        self.branch = nn.Sequential(*before, *branch[:-2])  # the next block begins with the rest
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(x)  # (B, C, H, W)
        return self.branch(x) + self.shortcut(x)  # (B, C', H', W')


class ResNet(nn.Module):
    """A stem, stages of residual blocks, the mean over what is left of the picture, a linear layer.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of a picture, 1 for grey and 3 for RGB.
        image_size: Height and width of a picture in pixels; any will do, the mean is over all.
        depth: Layers with weights: 18, 34 or 50 of the ImageNet nets (four stages, 50 with
            bottlenecks), 20, 32 or 56 of the CIFAR nets (three stages).
        width: Channels of the first stage; by default the paper's 64 or, for CIFAR nets, 16.
        pre_activation: Norm and ReLU before each convolution instead of after it.
        stem: `small`: a 3x3 convolution. `imagenet`: a 7x7 convolution of stride 2 and max-pooling,
            which leave a sixteenth of the pixels: right for 224x224, too few of 28x28.

    Raises:
        ValueError: If the papers have no net of that depth, or the stem is neither of the two.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
        depth: int = 20,
        width: int | None = None,
        pre_activation: bool = False,
        stem: str = "small",
    ) -> None:
        super().__init__()
        if depth not in FAMILIES:
            raise ValueError(f"ResNet: depth must be 18, 20, 32, 34, 50 or 56, not {depth}.")
        if stem not in ("small", "imagenet"):
            raise ValueError(f"ResNet: stem must be small or imagenet, not {stem}.")
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.image_size = image_size
        self.depth = depth
        self.width = width
        self.pre_activation = pre_activation
        self.stem = stem

        family = FAMILIES[depth]
        inner = channels = width or family.width
        if stem == "imagenet":
            first = [*conv_norm_relu(in_channels, channels, 7, stride=2), nn.MaxPool2d(3, 2, 1)]
        else:
            first = conv_norm_relu(in_channels, channels)
        self.first = nn.Sequential(*first)
        self.stages = nn.Sequential()
        for stage, number in enumerate(family.blocks):
            blocks = nn.Sequential()
            for block in range(number):
                stride = 2 if stage > 0 and block == 0 else 1
                fan_out = 4 * inner if family.bottleneck else inner
                branch = branch_layers(channels, inner, stride, family.bottleneck)
                shortcut = shortcut_layers(
                    channels, fan_out, stride, family.projection, norm=not pre_activation
                )
                if pre_activation:
                    activation = [BatchNorm2d(channels), ReLU()]
                    shared = activation if stage > 0 and block == 0 else []  # or the stem's
                    before = activation if block > 0 else []
                    blocks.append(PreActivationBlock(shared, before, branch, shortcut))
                else:
                    blocks.append(Block(branch, shortcut))
                channels = fan_out
            self.stages.append(blocks)
            inner *= 2
        last = [BatchNorm2d(channels), ReLU()] if pre_activation else []
        self.head = nn.Sequential(
            *last, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)
        )
        init_weights_for_relu(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures (B, C, height, width) to logits (B, num_classes)."""
        x = self.first(inputs)  # (B, width, H', W')
        x = self.stages(x)  # (B, channels, H'', W'')
        logits: Tensor = self.head(x)  # (B, num_classes)
        return logits
