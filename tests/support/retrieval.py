"""A fast encoder and small documents for the tests of retrieval."""

import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from retrieval.documents import Document
from retrieval.encoders import SentenceVectors
from retrieval.indexing import update_index

DIM = 64


class HashedWords:
    """An encoder whose vector is the sum of fixed random vectors of the words."""

    def __init__(self, fingerprint: str = "hashed-words") -> None:
        self.source = self.fingerprint = fingerprint
        self.tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        self.encoded = 0  # number of texts

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.encoded += len(texts)
        rows = np.stack([_sum_of_words(text) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _sum_of_words(text: str) -> np.ndarray:
    words = [*re.findall(r"\w+", text.lower()), "bias"]
    seeds = [zlib.crc32(word.encode()) for word in words]
    return sum(np.random.default_rng(seed).standard_normal(DIM) for seed in seeds)


ANIMALS = (
    "# Animals\n\nAn owl hunts mice at night. Its eyes are large.\n\n## Seas\n\n"
    "A whale breathes air. It dives for squid, a mile deep.\n"
)
PLANTS = "Moss grows on wet stones. An oak lives for five hundred years. Ferns have no seeds.\n"


def small_documents() -> list[Document]:
    return [
        Document("animals.md", ANIMALS, {"year": 2020, "lang": "en"}),
        Document("plants.txt", PLANTS, {"year": 2023, "lang": "en"}),
        Document("stones.txt", "Granite is hard. Chalk is soft and white.", {"lang": "de"}),
    ]


def make_index(folder: Path, encoder: Path) -> Path:
    """Index the small documents with an encoder of a model folder; return the index folder."""
    update_index(folder, small_documents(), SentenceVectors(str(encoder)))
    return folder
