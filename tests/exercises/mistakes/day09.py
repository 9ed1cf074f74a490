"""Typical wrong solutions of day 9."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("he_std", "2 / (", "1 / (", "halves the second moment"),
    Mistake("he_std", "negative_slope**2", "negative_slope", "slope is squared"),
    Mistake(
        "ResidualBlock",
        "(self.norm2(self.conv2(y)) + self.shortcut(x)).relu()",
        "self.norm2(self.conv2(y)).relu() + self.shortcut(x)",
        "before the last ReLU",
    ),
    Mistake(
        "ResidualBlock",
        "nn.Sequential(projection, nn.BatchNorm2d(out_channels))",
        "projection",
        "has a batch norm, too",
    ),
    Mistake(
        "ResidualBlock", "if stride != 1 or in_channels != out_channels", "if True", "identity only"
    ),
    Mistake(
        "ResidualBlock",
        "self.norm1(self.conv1(x)).relu()",
        "self.norm1(self.conv1(x))",
        "between the convolutions",
    ),
    Mistake(
        "convolution_costs", "(in_channels // groups)", "in_channels", "sees in_channels / groups"
    ),
    Mistake(
        "convolution_costs", "parameters * size**2", "parameters * size", "positions of the output"
    ),
    Mistake(
        "fold_batch_norm", "shift * scale + norm.bias", "shift * scale", "bias of the batch norm"
    ),
    Mistake("fold_batch_norm", "bias - norm.running_mean", "bias", "running mean"),
]
