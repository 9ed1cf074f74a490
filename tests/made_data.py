"""Small data sets made on the spot, in the very file formats of the real ones."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image
from tokenizers import Tokenizer
from torchvision import datasets

from datamodules import tokenization
from datamodules.token_shards import DTYPES, ShardWriter, write_index

SIZES = {"train": 5_600, "t10k": 300}  # the validation split takes 5,000 of the training pictures
DATA_SETS = {"MNIST": datasets.MNIST, "FashionMNIST": datasets.FashionMNIST}


def make_mnist(folder: Path, name: str = "MNIST") -> dict[str, str]:
    """Write the four files of an MNIST in which each class lights up its own place.

    Returns:
        File name to md5.
    """
    random = np.random.default_rng(0)
    raw = folder / name / "raw"
    raw.mkdir(parents=True)
    checksums = {}
    for split, size in SIZES.items():
        labels = random.integers(0, 10, size, dtype=np.uint8)
        pictures = random.integers(0, 60, (size, 28, 28), dtype=np.uint8)
        for picture, label in zip(pictures, labels, strict=True):
            row, column = divmod(int(label), 4)
            picture[9 * row : 9 * row + 6, 7 * column : 7 * column + 6] = 230
        for kind, values in (("images-idx3", pictures), ("labels-idx1", labels)):
            file = raw / f"{split}-{kind}-ubyte.gz"
            file.write_bytes(gzip.compress(idx(values), compresslevel=1, mtime=0))
            checksums[file.name] = hashlib.md5(file.read_bytes()).hexdigest()
    return checksums


def idx(values: np.ndarray) -> bytes:
    """Bytes in the IDX format: 0, 0, type (8: unsigned byte), number of dimensions, sizes, data."""
    sizes = np.array(values.shape, dtype=">i4").tobytes()
    return bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()


def make_shards(
    folder: Path, shard_tokens: int = 10_000, tokenizer: Tokenizer | None = None, highest: int = 59
) -> Path:
    """Write 3,000 random tokens to train and 400 to validate; 60 kinds unless told otherwise."""
    alphabet = "".join(map(chr, range(32, 91)))
    made, end = tokenization.with_end_of_text(tokenizer or tokenization.characters(alphabet))
    dtype = np.dtype(tokenization.token_dtype(made))
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for split, size in (("train", 3_000), ("val", 400)):
        writer = ShardWriter(folder, split, DTYPES[dtype.name], shard_tokens)
        tokens = random.integers(0, highest + 1, size).astype(dtype)
        tokens[0] = highest
        writer.write(tokens)
        writer.close()
        shards += writer.shards
    write_index(folder, made, end, shards, [{"name": "made on the spot", "documents": 1}])
    return folder


def make_photographs(folder: Path, splits: dict[str, int], side: int = 20) -> Path:
    """Write `<split>/<class>/*.jpg` (an empty split: `<class>/*.jpg`), so many of each class.

    Red spots on ants, green ones on bees; sizes and places differ.
    """
    random = np.random.default_rng(0)
    for split, number in splits.items():
        for label, name in enumerate(("ants", "bees")):
            (folder / split / name).mkdir(parents=True)
            for i in range(number):
                height, width = random.integers(side, 2 * side, 2)
                pixels = random.integers(0, 90, (height, width, 3), dtype=np.uint8)
                top, left = random.integers(0, side // 2, 2)
                pixels[top : top + side // 2, left : left + side // 2, label] = 240
                Image.fromarray(pixels).save(folder / split / name / f"{i}.jpg", quality=95)
    return folder
