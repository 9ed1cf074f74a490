"""IMDB: is a film review, often pages long, for the film or against it?"""

import tarfile
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.classification.base import TextClassificationDataModule
from datamodules.classification.labeled_texts import LabeledTexts, split_off
from datamodules.language_modeling.packed_texts import PackedTexts
from datamodules.loading.files import obtain, verify

URL = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
MD5 = "7c2ac02c03563afcf9b574c7e56c153a"
# The same reviews without the 50,000 unlabelled ones: taken where it is there.
LABELLED_ONLY = "aclImdb_pos_neg.tar.gz"
LABELLED_ONLY_SHA256 = "5b0ac7b925ad8af1dc1b2ab4bf9fc718fa3f4a51041b5e548a0be5a830ae37fc"
VALIDATION_SIZE = 2_500


class IMDB(TextClassificationDataModule):
    """50,000 film reviews of 230 words on average (Maas et al. 2011), half of each kind.

    22,500 train and 2,500 val are split from the official training reviews by a fixed seed; the
    official 25,000 test reviews, of other films, are only ever tested on.

    Takes the arguments of TextClassificationDataModule.
    """

    class_names: ClassVar[list[str]] = ["negative", "positive"]  # type: ignore[misc]

    def __init__(self, **text: Any) -> None:
        super().__init__(**text)

    def prepare_data(self) -> None:
        find(self.data_dir)

    def load(self) -> dict[str, LabeledTexts]:
        return splits(self.data_dir)


class PackedIMDB(PackedTexts):
    """The same reviews without their labels, in rows of equal length, to guess hidden words in.

    The texts of `train` and `val` are those of IMDB; the test reviews are left alone.

    Takes the arguments of PackedTexts.
    """

    def __init__(self, **packed: Any) -> None:
        super().__init__(**packed)

    def prepare_data(self) -> None:
        find(self.data_dir)

    @cached_property
    def _texts(self) -> dict[str, LabeledTexts]:
        return splits(self.data_dir)

    def documents(self, split: str) -> list[str]:
        return self._texts[split].texts


def find(data_dir: Path) -> Path:
    """The archive of the reviews, found or downloaded."""
    smaller = data_dir / "imdb" / LABELLED_ONLY
    if smaller.exists():
        verify(smaller, f"sha256:{LABELLED_ONLY_SHA256}", "Delete it.")
        return smaller
    return obtain(data_dir / "imdb" / "aclImdb_v1.tar.gz", [URL], f"md5:{MD5}")


def splits(data_dir: Path) -> dict[str, LabeledTexts]:
    """The reviews that train, those of them that validate instead, and the test reviews."""
    reviews = _read(find(data_dir))
    train, val = split_off(reviews["train"], VALIDATION_SIZE)
    return {"train": train, "val": val, "test": reviews["test"]}


def _read(path: Path) -> dict[str, LabeledTexts]:
    """`aclImdb/<train or test>/<neg or pos>/<number>_<stars>.txt` of an archive, by number."""
    found: dict[str, list[tuple[int, int, str]]] = {"train": [], "test": []}
    try:
        with tarfile.open(path, "r|gz") as archive:  # a stream: no jumping back in what is packed
            for member in archive:
                _, *folders = member.name.split("/")
                if len(folders) == 3 and folders[1] in ("neg", "pos") and member.isfile():
                    split, kind, name = folders
                    number = int(name.partition("_")[0])
                    text = archive.extractfile(member).read().decode()  # type: ignore[union-attr]
                    found[split].append((number, int(kind == "pos"), text))
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise MisconfigurationException(
            f"{path} can't be unpacked ({error}). Delete it; the next run downloads it anew."
        ) from error
    result = {}
    for split, reviews in found.items():
        reviews.sort()  # whatever the order in the archive
        result[split] = LabeledTexts([r[2] for r in reviews], [r[1] for r in reviews])
    return result
