"""A multilayer perceptron: every pixel is connected to every hidden unit.

Rumelhart, Hinton & Williams, "Learning representations by back-propagating errors" (1986).
The ground floor of the ladder. It sees a picture as a flat list of numbers: shuffle the pixels of
every picture in the same way and it learns just as well. What comes above knows better.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    """Flatten, then `Linear → ReLU → dropout` per hidden layer, then one linear layer to logits.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of a picture, 1 for grey and 3 for RGB.
        image_size: Height and width of a picture in pixels.
        hidden_sizes: Width of each hidden layer; an empty list gives softmax regression.
        dropout: Probability in [0, 1) of zeroing a hidden unit during training.
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
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.image_size = image_size
        self.hidden_sizes = list(hidden_sizes)
        self.dropout = dropout

        sizes = [in_channels * image_size * image_size, *hidden_sizes]
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        layers.append(nn.Linear(sizes[-1], num_classes))
        self.layers = nn.Sequential(*layers)

    @property
    def head(self) -> nn.Module:
        """The last layer, which makes the logits."""
        return self.layers[-1]

    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures (B, C, height, width) to logits (B, num_classes)."""
        logits: Tensor = self.layers(inputs)  # (B, C, H, W) -> (B, C·H·W) -> … -> (B, num_classes)
        return logits
