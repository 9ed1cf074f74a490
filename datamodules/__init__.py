"""LightningDataModules: one data set or file format per file."""

from functools import partial

from datamodules.classification.ag_news import AGNews
from datamodules.classification.glue import GLUE
from datamodules.classification.hugging_face_texts import HuggingFaceTexts
from datamodules.classification.imdb import IMDB, PackedIMDB
from datamodules.classification.sst2 import SST2
from datamodules.classification.tagged_texts import TaggedTexts
from datamodules.classification.text_table import TextTable
from datamodules.images.augmentation import PerImageAffine, PerImageElastic
from datamodules.images.digits import Digits
from datamodules.images.image_folder import ImageFolder
from datamodules.images.mnist import MNIST, FashionMNIST
from datamodules.language_modeling.instructions import Instructions
from datamodules.language_modeling.packed_texts import PackedFiles
from datamodules.language_modeling.preferences import Preferences
from datamodules.language_modeling.shakespeare import Shakespeare
from datamodules.language_modeling.source import PackedSource, PythonSource
from datamodules.language_modeling.text_file import TextFile
from datamodules.language_modeling.text_stream import TextStream
from datamodules.language_modeling.token_shards import TokenShards
from datamodules.language_modeling.token_stream import TokenStream
from datamodules.question_answering.extractive_questions import ExtractiveQuestions
from datamodules.question_answering.grounded_answers import GroundedAnswers
from datamodules.question_answering.query_passages import QueryPassages
from datamodules.question_answering.reading_comprehension import ReadingComprehension
from datamodules.translation.multi30k import Multi30k
from datamodules.translation.parallel_files import ParallelFiles
from datamodules.translation.reversed_words import ReversedWords
from datamodules.word_vectors.context_windows import ContextWindows
from datamodules.word_vectors.cooccurrences import Cooccurrences
from engine.renamed import renamed_attribute

__all__ = [
    "GLUE",
    "IMDB",
    "MNIST",
    "SST2",
    "AGNews",
    "ContextWindows",
    "Cooccurrences",
    "Digits",
    "ExtractiveQuestions",
    "FashionMNIST",
    "GroundedAnswers",
    "HuggingFaceTexts",
    "ImageFolder",
    "Instructions",
    "Multi30k",
    "PackedFiles",
    "PackedIMDB",
    "PackedSource",
    "ParallelFiles",
    "PerImageAffine",
    "PerImageElastic",
    "Preferences",
    "PythonSource",
    "QueryPassages",
    "ReadingComprehension",
    "ReversedWords",
    "Shakespeare",
    "TaggedTexts",
    "TextFile",
    "TextStream",
    "TextTable",
    "TokenShards",
    "TokenStream",
]

__getattr__ = partial(renamed_attribute, __name__)  # old names of classes
