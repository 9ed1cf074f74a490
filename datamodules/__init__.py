"""The data: one data set, or one file format, a file."""

from datamodules.ag_news import AGNews
from datamodules.context_windows import ContextWindows
from datamodules.cooccurrences import Cooccurrences
from datamodules.digits import Digits
from datamodules.hugging_face_texts import HuggingFaceTexts
from datamodules.image_folder import ImageFolder
from datamodules.imdb import IMDB, PackedIMDB
from datamodules.mnist import MNIST, FashionMNIST
from datamodules.multi30k import Multi30k
from datamodules.packed_texts import PackedFiles
from datamodules.parallel_files import ParallelFiles
from datamodules.reversed_words import ReversedWords
from datamodules.shakespeare import Shakespeare
from datamodules.source import PackedSource, PythonSource
from datamodules.sst2 import SST2
from datamodules.text_file import TextFile
from datamodules.text_stream import TextStream
from datamodules.text_table import TextTable
from datamodules.token_shards import TokenShards
from datamodules.token_stream import TokenStream

__all__ = [
    "IMDB",
    "MNIST",
    "SST2",
    "AGNews",
    "ContextWindows",
    "Cooccurrences",
    "Digits",
    "FashionMNIST",
    "HuggingFaceTexts",
    "ImageFolder",
    "Multi30k",
    "PackedFiles",
    "PackedIMDB",
    "PackedSource",
    "ParallelFiles",
    "PythonSource",
    "ReversedWords",
    "Shakespeare",
    "TextFile",
    "TextStream",
    "TextTable",
    "TokenShards",
    "TokenStream",
]
