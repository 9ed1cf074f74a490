"""The data: one data set, or one file format, a file."""

from datamodules.digits import Digits
from datamodules.image_folder import ImageFolder
from datamodules.mnist import MNIST, FashionMNIST
from datamodules.shakespeare import Shakespeare
from datamodules.source import PythonSource
from datamodules.text_file import TextFile
from datamodules.token_shards import TokenShards

__all__ = [
    "MNIST",
    "Digits",
    "FashionMNIST",
    "ImageFolder",
    "PythonSource",
    "Shakespeare",
    "TextFile",
    "TokenShards",
]
