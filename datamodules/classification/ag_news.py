"""AG News: the topic of news items: world, sports, business, or science and technology."""

import csv
import gzip
import io
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch.utilities import rank_zero_warn

from datamodules.classification.base import (
    LabeledTexts,
    TextClassificationDataModule,
    split_off,
)
from datamodules.loading.files import obtain, verify

URL = (
    "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/"
    "555590db4219b1243abb1918effd6a7425a2d75f/data/ag_news_csv/"
)
SHA256 = {
    "train.csv": "76a0a2d2f92b286371fe4d4044640910a04a803fdd2538e0f3f29a5c6f6b672e",
    "test.csv": "521465c2428ed7f02f8d6db6ffdd4b5447c1c701962353eb2c40d548c3c85699",
    "test.csv.gz": "3c277beb6ce3dd635407635cb90a7c5ceaf87168fabb3be218e39aa2b097f706",
    # Parts of the training file, used if train.csv does not exist.
    "train-part-a-10001.tsv.gz": "09d2803c53bc689218bc73519ae3db680d7c9833d75e07532821482e81feeeef",
    "train-part-b-5000.csv.gz": "eeae4926d5e199f5f4aa78eb152798943f4961256e401aa8e6ecd1c75e382166",
}
PARTS = ("train-part-a-10001.tsv.gz", "train-part-b-5000.csv.gz")
VALIDATION_FRACTION = 0.05


class AGNews(TextClassificationDataModule):
    """Titles and descriptions of news of 2004 and 2005 (Zhang, Zhao & LeCun 2015), four classes.

    Train: the 120,000 items of the official file; if only its two parts exist (10,001 descriptions
    and 5,000 items), their 14,553 distinct items. Val: 5 % of them, split off by a fixed seed.
    Test: the official 7,600 items; items of the parts that occur in it are excluded from training.

    Takes the arguments of TextClassificationDataModule.
    """

    class_names: ClassVar[list[str]] = ["World", "Sports", "Business", "Sci/Tech"]  # type: ignore[misc]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    @property
    def _folder(self) -> Path:
        return self.data_dir / "ag_news"

    @property
    def _in_parts(self) -> bool:
        found = [(self._folder / name).exists() for name in PARTS]
        return all(found) and not (self._folder / "train.csv").exists()

    def _find(self, name: str) -> Path:
        path = self._folder / name
        if path.exists():
            verify(path, f"sha256:{SHA256[name]}", "Delete it.")
            return path
        return obtain(path, [URL + name], f"sha256:{SHA256[name]}")

    def prepare_data(self) -> None:
        for name in (*(PARTS if self._in_parts else ("train.csv",)), self._test_file):
            self._find(name)

    @property
    def _test_file(self) -> str:
        compressed = (self._folder / "test.csv.gz").exists()
        return "test.csv.gz" if compressed else "test.csv"

    def load(self) -> dict[str, LabeledTexts]:
        test = _official(self._find(self._test_file))
        if self._in_parts:
            everything = self._join_parts(test)
            rank_zero_warn(
                f"AG News trains on {len(everything.labels):,} of its 120,000 training items: the "
                f"parts in {self._folder}, since train.csv does not exist."
            )
        else:
            everything = _official(self._find("train.csv"))
        train, val = split_off(everything, int(VALIDATION_FRACTION * len(everything.labels)))
        return {"train": train, "val": val, "test": test}

    def _join_parts(self, test: LabeledTexts) -> LabeledTexts:
        """Join both parts; drop duplicates and test items, with or without their titles."""
        described, titled = (_read_text(self._find(name)) for name in PARTS)
        numbers = {name: number for number, name in enumerate(self.class_names)}
        items = {row[0]: int(row[1]) for row in csv.reader(io.StringIO(titled))}
        # The first part has descriptions only: an item of the other part ends with its description.
        known = _Suffixes([*items, *test.texts])
        for line in described.removesuffix("\n").split("\n"):
            text, _, name = line.rpartition("\t")
            if text not in items and text not in known:
                items[text] = numbers[name]
        return LabeledTexts(list(items), list(items.values()))


class _Suffixes:
    """A set of texts; contains every suffix of them."""

    def __init__(self, texts: list[str]) -> None:
        self.by_last_word: dict[str, list[str]] = {}
        for text in texts:
            self.by_last_word.setdefault(_last_word(text), []).append(text.strip())

    def __contains__(self, text: str) -> bool:
        others = self.by_last_word.get(_last_word(text), ())
        return any(other.endswith(text.strip()) for other in others)


def _last_word(text: str) -> str:
    return text.split()[-1] if text.strip() else ""


def _official(path: Path) -> LabeledTexts:
    """Read rows `"class from 1","title","description"`."""
    rows = list(csv.reader(io.StringIO(_read_text(path))))
    texts = [f"{title} {description}" for _, title, description in rows]
    return LabeledTexts(texts, [int(row[0]) - 1 for row in rows])


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
