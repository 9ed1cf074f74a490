"""VGG: a deep stack of 3x3 convolutions with max-pooling in between.

Simonyan & Zisserman, "Very deep convolutional networks for large-scale image recognition" (2015).
The receptive field of the CNN is 6x6 pixels, smaller than a digit. New here: depth. Two 3x3
convolutions have the receptive field of one 5x5 and three that of one 7x7, with fewer weights and
more nonlinearities; the paper studies depths of 11 to 19 layers.
"""

from torch import Tensor, nn

from modules.nets.layers.convolution import conv_norm_relu, init_weights_for_relu
from modules.nets.layers.dropout import Dropout

# Table 1 of the paper, columns A, B, D and E: convolutions per stage by number of weight layers;
# and the channels of the stages, 64, 128, 256, 512 and 512, as multiples of the first.
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (1, 2, 4, 8, 8)


class VGG(nn.Module):
    """Five stages of `Conv 3x3 → (batch norm) → ReLU` with max-pooling, then three linear layers.

    The paper's network is `VGG(1000, in_channels=3, image_size=224, hidden_size=4096)`. Small
    images differ in two ways. A stage does not pool if a single pixel would remain, where eight of
    nine weights of a 3x3 filter only see padding: 28 pixels become 14, 7 and 3. And the head is 512
    wide: 124 of the paper's 138 million weights (depth 16) are in its head, which small images and
    ten classes do not need.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of an image, 1 for grayscale and 3 for RGB.
        image_size: Height and width of an image in pixels.
        depth: Number of weight layers: 11, 13, 16 or 19.
        width: Channels of the first stage; the later ones have 2, 4, 8 and 8 times as many.
        hidden_size: Width of the two hidden layers between the features and the logits.
        batch_norm: Normalize each channel over the batch before its ReLU. The paper predates it;
            without it depths 16 and 19 may fail to train from random weights.
        dropout: Dropout probability of the hidden layers, in [0, 1).

    Raises:
        ValueError: If the paper has no network of that depth.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
        depth: int = 11,
        width: int = 64,
        hidden_size: int = 512,
        batch_norm: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if depth not in CONVOLUTIONS:
            raise ValueError(f"VGG: depth must be 11, 13, 16 or 19, got {depth}.")
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.image_size = image_size
        self.depth = depth
        self.width = width
        self.hidden_size = hidden_size
        self.batch_norm = batch_norm
        self.dropout = dropout

        layers: list[nn.Module] = []
        channels, size = in_channels, image_size
        for convolutions, factor in zip(CONVOLUTIONS[depth], WIDTHS, strict=True):
            for _ in range(convolutions):
                layers += conv_norm_relu(channels, factor * width, batch_norm=batch_norm)
                channels = factor * width
            if size >= 4:
                # Before the ReLU: the same result with a quarter of the work.
                layers.insert(-1, nn.MaxPool2d(2))
                size //= 2
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * size**2, hidden_size),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(hidden_size, num_classes),
        )
        init_weights_for_relu(self)

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.features(inputs)  # (B, C, H, W) -> (B, 8·width, H', W')
        logits: Tensor = self.head(features)  # (B, num_classes)
        return logits
