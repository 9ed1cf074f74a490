"""VGG: nothing but 3x3 convolutions, many of them, and a pooling now and then.

Simonyan & Zisserman, "Very deep convolutional networks for large-scale image recognition" (2015).
The CNN below sees 6x6 pixels at a time, too few for a whole digit. Two 3x3 convolutions see as much
as one of 5x5 and three as much as one of 7x7, with fewer weights and a ReLU more each; so the paper
asks what depth alone gives, and goes from 11 layers to 19.
"""

from torch import Tensor, nn

from modules.nets.layers.convolution import Flatten, conv_norm_relu, init_weights_for_relu
from modules.nets.layers.dropout import Dropout
from modules.nets.layers.subsampling import MaxPool2d

# Table 1 of the paper, columns A, B, D and E: the convolutions of each stage, by layers with
# weights; and the stages' channels, 64, 128, 256, 512 and 512, as multiples of the first.
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (1, 2, 4, 8, 8)


class VGG(nn.Module):
    """Five stages of `Conv 3x3 → (batch norm) → ReLU`, max-pooling after them, three linear layers.

    The paper's net is `VGG(1000, in_channels=3, image_size=224, hidden_size=4096)` and the like.
    For small pictures two things differ. A stage whose pooling would leave a single pixel does not
    pool: to a 3x3 filter on one pixel all but its centre is padding, so eight of nine weights would
    learn nothing. Thus 28 pixels become 14, 7 and 3, and 8 become 4 and 2. And the head is 512
    wide: of the paper's 138 million weights (depth 16) 124 million are in its head, because it
    meets 7x7x512 features and tells 1000 classes apart; small pictures leave a tenth of those
    features, and ten classes need no 4096 units.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of a picture, 1 for grey and 3 for RGB.
        image_size: Height and width of a picture in pixels.
        depth: Layers with weights: 11, 13, 16 or 19.
        width: Channels of the first stage; the stages after it have 2, 4, 8 and 8 times as many.
        hidden_size: Width of the two hidden layers between the features and the logits.
        batch_norm: Normalise each channel over the batch before its ReLU. The paper is older; with
            it depth 16 and 19 need neither luck nor a shallower net to start from.
        dropout: Probability in [0, 1) of zeroing a unit of the hidden layers.

    Raises:
        ValueError: If the paper has no net of that depth.
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
            raise ValueError(f"VGG: depth must be 11, 13, 16 or 19, not {depth}.")
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
                # A ReLU after the maximum does the same as before it, with a quarter of the work.
                layers.insert(-1, MaxPool2d(2))
                size //= 2
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            Flatten(),
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
        """Pictures (B, C, height, width) to logits (B, num_classes)."""
        features = self.features(inputs)  # (B, 8·width, H', W')
        logits: Tensor = self.head(features)  # (B, num_classes)
        return logits
