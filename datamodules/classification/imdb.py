"""IMDB: the sentiment, positive or negative, of film reviews, often pages long."""

import tarfile
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from datamodules.classification.base import (
    LabeledTexts,
    TextClassificationDataModule,
    split_off,
)
from datamodules.language_modeling.packed_texts import PackedTexts
from datamodules.loading.files import obtain, verify
from engine.errors import UserError

URL = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
MD5 = "7c2ac02c03563afcf9b574c7e56c153a"
# The same reviews without the 50,000 unlabeled ones: used if it exists.
LABELED_ONLY = "aclImdb_pos_neg.tar.gz"
LABELED_ONLY_SHA256 = "5b0ac7b925ad8af1dc1b2ab4bf9fc718fa3f4a51041b5e548a0be5a830ae37fc"
VALIDATION_SIZE = 2_500


class IMDB(TextClassificationDataModule):
    """50,000 film reviews of 230 words on average (Maas et al. 2011), half of them positive.

    Train (22,500) and val (2,500) are split from the official training reviews by a fixed seed;
    test is the official test split, 25,000 reviews of other films.

    Takes the arguments of TextClassificationDataModule.
    """

    class_names: ClassVar[list[str]] = ["negative", "positive"]  # type: ignore[misc]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def prepare_data(self) -> None:
        find(self.data_dir)

    def load(self) -> dict[str, LabeledTexts]:
        return splits(self.data_dir)


class PackedIMDB(PackedTexts):
    """IMDB's reviews without labels, packed into sequences for masked language models.

    `train` and `val` have the texts of IMDB's splits; the test reviews are not used.

    Takes the arguments of PackedTexts.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def prepare_data(self) -> None:
        find(self.data_dir)

    @cached_property
    def _texts(self) -> dict[str, LabeledTexts]:
        return splits(self.data_dir)

    def documents(self, split: str) -> list[str]:
        return self._texts[split].texts


def find(data_dir: Path) -> Path:
    """Return the archive of the reviews, downloaded if necessary."""
    smaller = data_dir / "imdb" / LABELED_ONLY
    if smaller.exists():
        verify(smaller, f"sha256:{LABELED_ONLY_SHA256}", "Delete it.")
        return smaller
    return obtain(data_dir / "imdb" / "aclImdb_v1.tar.gz", [URL], f"md5:{MD5}")


def splits(data_dir: Path) -> dict[str, LabeledTexts]:
    """Read the reviews and split off the validation reviews from the training reviews."""
    reviews = _read(find(data_dir))
    train, val = split_off(reviews["train"], VALIDATION_SIZE)
    return {"train": train, "val": val, "test": reviews["test"]}


def _read(path: Path) -> dict[str, LabeledTexts]:
    """Read `aclImdb/<train or test>/<neg or pos>/<number>_<stars>.txt`, ordered by number."""
    found: dict[str, list[tuple[int, int, str]]] = {"train": [], "test": []}
    try:
        with tarfile.open(path, "r|gz") as archive:  # as a stream: seeking in gzip is slow
            for member in archive:
                _, *folders = member.name.split("/")
                if len(folders) == 3 and folders[1] in ("neg", "pos") and member.isfile():
                    split, kind, name = folders
                    number = int(name.partition("_")[0])
                    text = archive.extractfile(member).read().decode()  # type: ignore[union-attr]
                    found[split].append((number, int(kind == "pos"), text))
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise UserError(
            f"{path} cannot be unpacked ({error}). Delete it; the next run downloads it again."
        ) from error
    result = {}
    for split, reviews in found.items():
        reviews.sort()  # independent of the order in the archive
        result[split] = LabeledTexts([r[2] for r in reviews], [r[1] for r in reviews])
    return result
