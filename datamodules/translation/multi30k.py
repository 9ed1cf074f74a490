"""Multi30k: image captions in German and English."""

from pathlib import Path
from typing import Any

from datamodules.loading.files import obtain
from datamodules.translation.base import ParallelTexts, TranslationDataModule, read_pairs

URL = (
    "https://raw.githubusercontent.com/multi30k/dataset/"
    "a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw/"
)
FILES = {"train": "train", "val": "val", "test": "test_2016_flickr"}
SHA256 = {
    "train.de.gz": "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
    "train.en.gz": "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
    "val.de.gz": "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
    "val.en.gz": "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
    "test_2016_flickr.de.gz": "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
    "test_2016_flickr.en.gz": "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
}


class Multi30k(TranslationDataModule):
    """Image captions, German to English (Elliott et al. 2016, task 1; raw text).

    29,000 training pairs, 1,014 validation pairs, and the 1,000 test pairs of test_2016_flickr.

    Takes the arguments of TranslationDataModule.
    """

    def __init__(self, **translation: Any) -> None:
        super().__init__(**translation)

    def prepare_data(self) -> None:
        for name in SHA256:
            self._find(name)

    def _find(self, name: str) -> Path:
        return obtain(
            self.data_dir / "multi30k" / name,
            [URL + name],
            f"sha256:{SHA256[name]}",
            offline_config="configs/toy/reversed_words.yaml",
        )

    def load(self) -> dict[str, ParallelTexts]:
        return {
            split: read_pairs(self._find(f"{name}.de.gz"), self._find(f"{name}.en.gz"))
            for split, name in FILES.items()
        }
