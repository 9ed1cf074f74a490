"""The summary at the end of a run."""

from pathlib import Path

from engine.run.console import print_summary


def test_summary_has_metrics_of_every_name(tmp_path: Path, capsys) -> None:
    metrics = {"train_loss": 0.5, "validation_loss": 0.25, "test/f1/shirt": 0.125, "lr-Adam": 0.1}
    print_summary({**metrics, "quality": 0.75}, {}, tmp_path)
    header, loss, quality, last = capsys.readouterr().out.splitlines()
    assert header.split() == ["metric", "train", "(last", "epoch)", "val", "logged"]
    assert loss.split() == ["loss", "0.5000", "0.2500"]
    assert quality.split() == ["quality", "0.7500"]
    assert last == f"run folder: {tmp_path}"
