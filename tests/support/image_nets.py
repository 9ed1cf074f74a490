"""Every image network, for the contract tests; a new network is included automatically."""

import inspect
from collections.abc import Callable

from torch import nn

import modules.nets
from modules.nets import CNN, MLP, VGG, ResNet, ResNet9, TorchvisionNet
from modules.scratch.numpy_nets import NumpyCNN, NumpyMLP

NUM_CLASSES = 7
IMAGE_NET_CLASSES = [
    net
    for net in (getattr(modules.nets, name) for name in modules.nets.__all__)
    if {"num_classes", "in_channels", "image_size"} <= set(inspect.signature(net).parameters)
    and net is not TorchvisionNet  # it has no default network
] + [NumpyMLP, NumpyCNN]


def _with(net: type[nn.Module], **arguments: object) -> Callable[[], nn.Module]:
    return lambda: net(num_classes=NUM_CLASSES, **arguments)


SMALL_NETS: dict[str, Callable[[], nn.Module]] = {  # small enough to train in a test
    "MLP-no-hidden": _with(MLP, image_size=8, hidden_sizes=[]),
    "MLP-deep": _with(MLP, image_size=8, hidden_sizes=[32, 24, 16]),
    "MLP-rgb-dropout": _with(MLP, image_size=6, in_channels=3, dropout=0.2),
    "CNN-padding": _with(CNN, image_size=8, channels=[8, 16], hidden_size=32, padding=1),
    "CNN-no-padding": _with(CNN, image_size=8, channels=[8, 16], hidden_size=32),
    "CNN-rgb": _with(CNN, image_size=9, in_channels=3, channels=[6], hidden_size=16, dropout=0.2),
    "CNN-deep": _with(
        CNN, image_size=8, channels=[4, 6, 8, 8], hidden_size=16, padding=1, dropout=0.2
    ),
    "NumpyMLP-deep": _with(NumpyMLP, image_size=8, hidden_sizes=[32, 24]),
    "NumpyMLP-tanh": _with(NumpyMLP, image_size=6, in_channels=3, activation="tanh", dropout=0.2),
    "NumpyMLP-batch-norm": _with(NumpyMLP, image_size=8, hidden_sizes=[32], batch_norm=True),
    "NumpyCNN-small": _with(NumpyCNN, image_size=8, channels=[6], hidden_size=16),
    "NumpyCNN-batch-norm": _with(
        NumpyCNN, image_size=8, in_channels=3, channels=[4, 6], padding=0, batch_norm=True
    ),
    "CNN-batch-norm": _with(CNN, image_size=8, channels=[8, 16], hidden_size=32, batch_norm=True),
    "VGG-11": _with(VGG, image_size=8, width=4, hidden_size=32, dropout=0.1),
    "VGG-16-batch-norm": _with(
        VGG, image_size=8, in_channels=3, depth=16, width=4, batch_norm=True, dropout=0.1
    ),
    "ResNet-20": _with(ResNet, image_size=8, width=4),
    "ResNet-20-pre-activation": _with(ResNet, image_size=8, width=6, pre_activation=True),
    "ResNet-18-rgb": _with(ResNet, image_size=7, in_channels=3, depth=18, width=4),
    "ResNet-9-rgb": _with(ResNet9, image_size=9, in_channels=3, width=8, dropout=0.1),
    "ResNet-50-imagenet": _with(ResNet, image_size=32, depth=50, width=4, stem="imagenet"),
}
OTHERS = {
    "Torchvision": _with(TorchvisionNet, name="squeezenet1_1", image_size=33),
    "Torchvision-gray": _with(TorchvisionNet, name="squeezenet1_1", image_size=33, in_channels=1),
}
IMAGE_NETS = SMALL_NETS | OTHERS
