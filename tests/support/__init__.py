"""Helpers that several test modules share."""

import os
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TINY = ROOT / "tests/configs/digits/tiny.yaml"
DATA_SETS = ("MNIST", "FashionMNIST")  # of torchvision
REAL_DIR = Path(os.environ.get("DATA_DIR") or "data").resolve()
REAL = {name for name in DATA_SETS if (REAL_DIR / name / "raw/train-images-idx3-ubyte.gz").exists()}
QUIET = {  # arguments of a Trainer that writes and prints nothing
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
