"""The data: one data set, or one file format, a file."""

from datamodules.ag_news import AGNews
from datamodules.digits import Digits
from datamodules.hugging_face_texts import HuggingFaceTexts
from datamodules.image_folder import ImageFolder
from datamodules.imdb import IMDB, PackedIMDB
from datamodules.mnist import MNIST, FashionMNIST
from datamodules.packed_texts import PackedFiles
from datamodules.shakespeare import Shakespeare
from datamodules.source import PackedSource, PythonSource
from datamodules.sst2 import SST2
from datamodules.text_file import TextFile
from datamodules.text_table import TextTable
from datamodules.token_shards import TokenShards

__all__ = [
    "IMDB",
    "MNIST",
    "SST2",
    "AGNews",
    "Digits",
    "FashionMNIST",
    "HuggingFaceTexts",
    "ImageFolder",
    "PackedFiles",
    "PackedIMDB",
    "PackedSource",
    "PythonSource",
    "Shakespeare",
    "TextFile",
    "TextTable",
    "TokenShards",
]
