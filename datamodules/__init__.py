"""The data: one data set, or one file format, a file."""

from datamodules.digits import Digits
from datamodules.mnist import MNIST, FashionMNIST

__all__ = ["MNIST", "Digits", "FashionMNIST"]
