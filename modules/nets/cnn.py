"""A convolutional network: the same small filter looks at every place of the picture.

LeCun et al., "Gradient-based learning applied to document recognition" (1998).
The MLP below has to learn a stroke anew for each place where it can appear. Here a filter is shared
by all places (translation equivariance) and pooling forgets where exactly it fired.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from modules.nets.layers.convolution import Flatten, conv_norm_relu
from modules.nets.layers.dropout import Dropout
from modules.nets.layers.subsampling import MaxPool2d


class CNN(nn.Module):
    """`Conv 3x3 → (batch norm) → ReLU` per channel count, one max-pool, fully connected head.

    By default conv 1→32→64, max-pool, dropout, 128 hidden units, dropout: the net that nearly every
    MNIST tutorial trains.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of a picture, 1 for grey and 3 for RGB.
        image_size: Height and width of a picture in pixels.
        channels: Output channels of each 3x3 convolution.
        hidden_size: Width of the hidden layer between the features and the logits.
        padding: Zeros added around each picture before a convolution: 0 lets it shrink by 2 pixels
            a convolution, 1 keeps its size (small pictures need that).
        conv_dropout: Probability in [0, 1) of zeroing a feature after pooling.
        dropout: Probability in [0, 1) of zeroing a unit of the hidden layer.
        batch_norm: Normalise each channel over the batch before its ReLU.

    Raises:
        ValueError: If there is no convolution, or the picture is too small for them and the
            pooling.
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
            raise ValueError("CNN: channels must not be empty: one number for each convolution.")
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.image_size = image_size
        self.channels = list(channels)
        self.hidden_size = hidden_size
        self.padding = padding
        self.conv_dropout = conv_dropout
        self.dropout = dropout
        self.batch_norm = batch_norm

        # A 3x3 convolution takes 2 pixels off each side length and padding gives 2·padding back.
        conv_size = image_size - len(channels) * (2 - 2 * padding)
        feature_size = conv_size // 2
        if feature_size < 1:
            raise ValueError(
                f"CNN: pictures of {image_size}x{image_size} pixels are too small for "
                f"{len(channels)} convolutions without padding and a 2x2 max-pool; "
                "use padding: 1 or fewer channels."
            )
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip([in_channels, *channels[:-1]], channels, strict=True):
            layers += conv_norm_relu(fan_in, fan_out, padding=padding, batch_norm=batch_norm)
        layers.insert(-1, MaxPool2d(2))  # a ReLU after it does the same with a quarter of the work
        self.features = nn.Sequential(*layers, Dropout(conv_dropout))
        self.head = nn.Sequential(
            Flatten(),
            nn.Linear(channels[-1] * feature_size**2, hidden_size),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(hidden_size, num_classes),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures (B, C, height, width) to logits (B, num_classes)."""
        features = self.features(inputs)  # (B, channels[-1], H', W')
        logits: Tensor = self.head(features)  # (B, num_classes)
        return logits
