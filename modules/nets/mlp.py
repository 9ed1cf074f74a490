"""MLP: a multilayer perceptron, which connects every pixel to every hidden unit.

Rumelhart, Hinton & Williams, "Learning representations by back-propagating errors" (1986). It
treats an image as a flat vector and ignores its geometry: a fixed permutation of the pixels of all
images changes nothing.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    """Flatten, then `Linear → ReLU → dropout` per hidden layer, then one linear layer to logits.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of an image, 1 for grayscale and 3 for RGB.
        image_size: Height and width of an image in pixels.
        hidden_sizes: Width of each hidden layer; an empty list gives softmax regression.
        dropout: Dropout probability of hidden units, in [0, 1).

    Raises:
        ValueError: If a width is not positive.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
        hidden_sizes: Sequence[int] = (128,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if any(size < 1 for size in hidden_sizes):
            raise ValueError(f"MLP: hidden_sizes must be positive, got {list(hidden_sizes)}")
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.image_size = image_size
        self.hidden_sizes = list(hidden_sizes)
        self.dropout = dropout

        sizes = [in_channels * image_size * image_size, *hidden_sizes]
        layers: list[nn.Module] = [nn.Flatten()]
        for in_features, out_features in pairwise(sizes):
            layers += [nn.Linear(in_features, out_features), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        layers.append(nn.Linear(sizes[-1], num_classes))
        self.layers = nn.Sequential(*layers)

    @property
    def head(self) -> nn.Module:
        """The output layer."""
        return self.layers[-1]

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.layers(inputs)  # (B, C, H, W) -> (B, C·H·W) -> … -> (B, num_classes)
        return logits
