"""Tiny Shakespeare: plays of 1,115,394 characters; 90 % for training, the rest for validation."""

from pathlib import Path
from typing import Any

from datamodules.language_modeling.text_file import TextFile
from datamodules.loading.files import obtain

URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/"
    "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt"
)
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


class Shakespeare(TextFile):
    """Tiny Shakespeare (Karpathy 2015), found in `data_dir/tinyshakespeare` or downloaded.

    Takes the arguments of TextFile except `files`.
    """

    def __init__(self, **text_file: Any) -> None:
        super().__init__(files=[], **text_file)

    def find(self) -> list[Path]:
        path = self.data_dir / "tinyshakespeare" / "input.txt"
        return [obtain(path, [URL], f"sha256:{SHA256}", offline_config="configs/source/gpt.yaml")]
