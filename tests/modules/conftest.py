"""A pretrained masked language model that several test modules use."""

import warnings
from pathlib import Path

import pytest

import train
from tests.support.masked_language_model import MLM
from tests.support.synthetic_data import patch_checksums


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory, synthetic_texts: Path) -> Path:
    """Run the masked language modeling config with a small network; return the run folder."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="ignore"):
        patch_checksums(synthetic_texts, patch)
        where = ("--data.data_dir", synthetic_texts, "--runs_dir", folder)
        arguments = [*MLM, *where, "--trainer.enable_progress_bar", "false"]
        return train.main([*map(str, arguments)])
