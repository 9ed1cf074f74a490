"""CNN: a convolutional network, which applies the same small filters at every image position.

LeCun et al., "Gradient-based learning applied to document recognition" (1998). The MLP has to learn
a stroke separately for every position. New here: filters share their weights across positions
(translation equivariance), and pooling discards the exact position.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from modules.nets.layers.convolution import conv_norm_relu
from modules.nets.layers.dropout import Dropout


class CNN(nn.Module):
    """`Conv 3x3 → (batch norm) → ReLU` per channel count, one max-pool, fully connected head.

    By default conv 1→32→64, max-pool, dropout, 128 hidden units, dropout: the network of PyTorch's
    MNIST example.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of an image, 1 for grayscale and 3 for RGB.
        image_size: Height and width of an image in pixels.
        channels: Output channels of each 3x3 convolution.
        hidden_size: Width of the hidden layer between the features and the logits.
        padding: Zeros added on each side before a convolution: with 0 it removes 2 pixels of height
            and width, with 1 it keeps the size (small images need that).
        conv_dropout: Dropout probability of the features after pooling, in [0, 1).
        dropout: Dropout probability of the hidden layer, in [0, 1).
        batch_norm: Normalize each channel over the batch before its ReLU.

    Raises:
        ValueError: If there is no convolution, or the image is too small for them and the pooling.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
        channels: Sequence[int] = (32, 64),
        hidden_size: int = 128,
        padding: int = 0,
        conv_dropout: float = 0.25,
        dropout: float = 0.5,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if not channels:
            raise ValueError("CNN: channels must not be empty: give one number per convolution.")
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.image_size = image_size
        self.channels = list(channels)
        self.hidden_size = hidden_size
        self.padding = padding
        self.conv_dropout = conv_dropout
        self.dropout = dropout
        self.batch_norm = batch_norm

        # A 3x3 convolution removes 2 pixels of height and width; padding adds 2 · padding.
        conv_size = image_size - len(channels) * (2 - 2 * padding)
        feature_size = conv_size // 2
        if feature_size < 1:
            raise ValueError(
                f"CNN: images of {image_size}x{image_size} pixels are too small for "
                f"{len(channels)} convolutions without padding and a 2x2 max-pool; "
                "use padding: 1 or fewer channels."
            )
        layers: list[nn.Module] = []
        for inputs, outputs in zip([in_channels, *channels[:-1]], channels, strict=True):
            layers += conv_norm_relu(inputs, outputs, padding=padding, batch_norm=batch_norm)
        layers.insert(-1, nn.MaxPool2d(2))  # before the ReLU: same result, a quarter of the work
        self.features = nn.Sequential(*layers, Dropout(conv_dropout))
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels[-1] * feature_size**2, hidden_size),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(hidden_size, num_classes),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.features(inputs)  # (B, C, H, W) -> (B, channels[-1], H', W')
        logits: Tensor = self.head(features)  # (B, num_classes)
        return logits
