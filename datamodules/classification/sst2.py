"""SST-2: the sentiment, positive or negative, of phrases from film reviews."""

import gzip
from pathlib import Path
from typing import Any, ClassVar

from datamodules.classification.base import LabeledTexts, TextClassificationDataModule
from datamodules.loading.files import obtain, verify

URL = (
    "https://raw.githubusercontent.com/FreedomIntelligence/qnn/"
    "77f549372d4371e7f2d52e77bc18df5096dd4779/data/SST/Binary/"
)
FILES = {  # a compressed file is used if it exists
    "train": {
        "sentiment-train": "10a92a297ec38e262386e5a2713b4bc70e5d18ced88b7f54bd171a26e5b34ab5",
        "sentiment-train.gz": "9fe43fd3600315b04b2c0180d56418297e337c02b18a58acd2f2a8f1d34bacc8",
    },
    "val": {
        "sentiment-dev": "9a6c7403b71a9b762158387afe4431253ae10cdfb2319b5275289f3766f48291",
    },
    "test": {
        "sentiment-test": "4fefd1cd67526cf87ebc7fafc3afc21cc7cfa6ae53b45e74f77f9456e3c62752",
    },
}


class SST2(TextClassificationDataModule):
    """Stanford Sentiment Treebank with two classes (Socher et al. 2013; GLUE's SST-2).

    Train: 67,349 phrases of 9 words on average, the labeled constituents of parsed sentences and
    the sentences themselves. Val: the 872 sentences of the official development set. Test: 1,821
    sentences.

    Takes the arguments of TextClassificationDataModule.
    """

    class_names: ClassVar[list[str]] = ["negative", "positive"]  # type: ignore[misc]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def prepare_data(self) -> None:
        for split in FILES:
            self._find(split)

    def _find(self, split: str) -> Path:
        folder = self.data_dir / "sst2"
        name, *compressed = FILES[split]
        for other in compressed:
            if (folder / other).exists():
                verify(folder / other, f"sha256:{FILES[split][other]}", "Delete it.")
                return folder / other
        return obtain(folder / name, [URL + name], f"sha256:{FILES[split][name]}")

    def load(self) -> dict[str, LabeledTexts]:
        return {split: _read(self._find(split)) for split in FILES}


def _read(path: Path) -> LabeledTexts:
    """Read lines `text TAB label`; the checksum guarantees their format."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    rows = [line.rpartition("\t") for line in text.removesuffix("\n").split("\n")]
    return LabeledTexts([row[0].strip() for row in rows], [int(row[2]) for row in rows])
