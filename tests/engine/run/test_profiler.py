"""configs/trainer/profile.yaml writes its tables into the run folder."""

from collections.abc import Callable

import pytest

from tests.support import ROOT, TINY


@pytest.mark.slow
def test_profile_writes_its_tables_into_the_run_folder(run: Callable) -> None:
    overlay = ("--config", ROOT / "configs/trainer/profile.yaml")
    few = ("--trainer.limit_train_batches", 12, "--test_after_fit", "false")
    folder = run("fit", "--config", TINY, *overlay, *few)
    assert "run_training_batch" in (folder / "fit-profile.txt").read_text()
    by_operator = ("--trainer.profiler.class_path", "PyTorchProfiler")
    folder = run("fit", "--config", TINY, *overlay, *by_operator, *few)
    assert "aten::" in (folder / "fit-profile.txt").read_text()
    assert list(folder.glob("*.pt.trace.json"))
