"""ResNet: residual blocks y = x + f(x), which make networks of a hundred layers trainable.

He, Zhang, Ren & Sun, "Deep residual learning for image recognition" (2015) and, for pre-activation,
"Identity mappings in deep residual networks" (2016). Beyond about twenty layers plain networks such
as VGG get worse even on their training data, although added layers could copy their input. New
here: a block is the identity plus a residual, so copying is its starting point, and the gradient
flows back through the identity unchanged.
"""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets.layers.convolution import conv_norm_relu, init_weights_for_relu


class Family(NamedTuple):
    """Structure of the networks of one depth."""

    blocks: tuple[int, ...]  # blocks per stage
    width: int  # channels of the 3x3 convolutions in the first stage; doubles per stage
    bottleneck: bool = False  # blocks of 1x1, 3x3, 1x1 convolutions instead of two 3x3
    projection: bool = True  # option B (1x1 convolution) instead of A (zero padding) for shortcuts


# Table 1 of the paper for ImageNet; section 4.2 for CIFAR-10, 6n + 2 layers.
FAMILIES = {
    18: Family((2, 2, 2, 2), 64),
    34: Family((3, 4, 6, 3), 64),
    50: Family((3, 4, 6, 3), 64, bottleneck=True),
    101: Family((3, 4, 23, 3), 64, bottleneck=True),
    152: Family((3, 8, 36, 3), 64, bottleneck=True),
    **{6 * n + 2: Family((n, n, n), 16, projection=False) for n in (3, 5, 7, 9, 18)},
}


class PaddingShortcut(nn.Module):
    """Option A: a shortcut without weights, every other pixel and zeros as the new channels.

    Args:
        before: Zero channels before those of the input.
        after: Zero channels after those of the input.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.before = before
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, ::2, ::2]  # (B, C, H / 2, W / 2), rounded up
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))  # (B, C', H / 2, W / 2)


def branch_layers(in_channels: int, width: int, stride: int, bottleneck: bool) -> list[nn.Module]:
    """Return the layers of f: `conv → norm → ReLU` twice, or three times with a bottleneck."""
    if not bottleneck:
        return conv_norm_relu(in_channels, width, stride=stride) + conv_norm_relu(width, width)
    # The stride is in the 3x3 convolution ("ResNet v1.5", as in torchvision); the paper has it in
    # the first 1x1, which then skips three of four pixels.
    return [
        *conv_norm_relu(in_channels, width, kernel_size=1),
        *conv_norm_relu(width, width, stride=stride),
        *conv_norm_relu(width, 4 * width, kernel_size=1),
    ]


class Block(nn.Module):
    """y = ReLU(shortcut(x) + f(x)) with f = conv → norm → ReLU → … → conv → norm (2015, eq. 1)."""

    def __init__(self, branch: list[nn.Module], shortcut: list[nn.Module]) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch[:-1])  # the last ReLU follows the sum
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x), inplace=True)  # (B, C', H', W')


class PreActivationBlock(nn.Module):
    """y = shortcut(x) + f(x) with f = norm → ReLU → conv → … → norm → ReLU → conv (2016, eq. 5).

    The path from block to block is the identity. In the first block of a stage, where the shape
    changes, norm and ReLU come before branch and shortcut separate (2016, appendix).
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
        self.branch = nn.Sequential(*before, *branch[:-2])  # the next block starts with the rest
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(x)  # (B, C, H, W)
        return self.branch(x) + self.shortcut(x)  # (B, C', H', W')


class ResNet(nn.Module):
    """A stem, stages of residual blocks, global average pooling, a linear layer.

    The weights are in the order of torchvision's ResNets and of common CIFAR implementations:
    `net.load_state_dict(dict(zip(net.state_dict(), theirs.values(), strict=True)))` loads theirs.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of an image, 1 for grayscale and 3 for RGB.
        image_size: Height and width of an image in pixels; any size works, due to global pooling.
        depth: Number of weight layers: 18, 34, 50, 101 or 152 for the ImageNet networks (four
            stages, from 50 on with bottlenecks), 20, 32, 44, 56 or 110 for the CIFAR networks
            (three stages, shortcuts without weights).
        width: Channels of the first stage; by default the paper's 64 or, for CIFAR, 16.
        pre_activation: Norm and ReLU before each convolution instead of after it.
        stem: "small" (a 3x3 convolution) or "imagenet" (a 7x7 convolution of stride 2 and
            max-pooling, which keep a sixteenth of the pixels: right for 224x224, not for 28x28).
        shortcut_padding: Where the weightless shortcuts of the CIFAR networks add their zero
            channels: "after" those of the input, or half of them on "both" sides, as weights from
            akamaster/pytorch_resnet_cifar10 expect.

    Raises:
        ValueError: If the papers have no network of that depth, or an option is unknown.
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
        shortcut_padding: str = "after",
    ) -> None:
        super().__init__()
        if depth not in FAMILIES:
            known = ", ".join(map(str, sorted(FAMILIES)))
            raise ValueError(f"ResNet: depth must be one of {known}, got {depth}.")
        if stem not in ("small", "imagenet"):
            raise ValueError(f"ResNet: stem must be small or imagenet, got {stem}.")
        if shortcut_padding not in ("after", "both"):
            raise ValueError(
                f"ResNet: shortcut_padding must be after or both, got {shortcut_padding}."
            )
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.image_size = image_size
        self.depth = depth
        self.width = width
        self.pre_activation = pre_activation
        self.stem = stem
        self.shortcut_padding = shortcut_padding

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
                out_channels = 4 * inner if family.bottleneck else inner
                branch = branch_layers(channels, inner, stride, family.bottleneck)
                shortcut = self._shortcut_layers(channels, out_channels, stride)
                if pre_activation:
                    norm_relu = [nn.BatchNorm2d(channels), nn.ReLU()]
                    shared = norm_relu if stage > 0 and block == 0 else []  # else the stem's
                    before = norm_relu if block > 0 else []
                    blocks.append(PreActivationBlock(shared, before, branch, shortcut))
                else:
                    blocks.append(Block(branch, shortcut))
                channels = out_channels
            self.stages.append(blocks)
            inner *= 2
        last = [nn.BatchNorm2d(channels), nn.ReLU()] if pre_activation else []
        self.head = nn.Sequential(
            *last, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)
        )
        init_weights_for_relu(self)

    def _shortcut_layers(self, in_channels: int, out_channels: int, stride: int) -> list[nn.Module]:
        """Return the layers of the shortcut; none (the identity) where the shape stays the same."""
        if in_channels == out_channels and stride == 1:
            return []
        if not FAMILIES[self.depth].projection:
            new = out_channels - in_channels
            before = new // 2 if self.shortcut_padding == "both" else 0
            return [PaddingShortcut(before, new - before)]
        convolution = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
        return [convolution] if self.pre_activation else [convolution, nn.BatchNorm2d(out_channels)]

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.first(inputs)  # (B, C, H, W) -> (B, width, H', W')
        x = self.stages(x)  # (B, channels, H'', W'')
        logits: Tensor = self.head(x)  # (B, num_classes)
        return logits
