"""scripts.compare: common metrics are drawn, config differences are listed."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from engine.run.config_differences import differences
from plotting.curves import draw_series
from scripts import compare

SPEED = 0.25  # seconds per step


@pytest.fixture
def made_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run folder as train.py does, with a loss of 1 / (step + 1) in training."""

    def made_run(
        name: str, steps: int = 20, ended: bool = True, losses: bool = True, **arguments
    ) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        config = {"seed_everything": 0, "experiment": name, "model": {"init_args": {"lr": 0.1}}}
        config["trainer"] = {
            "callbacks": ["callbacks.TrainingCurves", *arguments.pop("callbacks", [])]
        }
        config["model"]["init_args"] |= arguments
        (folder / "config.yaml").write_text("# git commit: x\n" + yaml.safe_dump(config))
        rows = (
            ["epoch,step,train/loss,val/loss,val/accuracy"] if losses else ["epoch,step,val/words"]
        )
        for step in range(steps):
            val = f"{2 / (step + 1)},{step / steps}" if step % 5 == 4 else ","
            rows.append(f"0,{step},{1 / (step + 1)},{val}" if losses else f"0,{step},{step}")
        if ended and losses:
            rows.append(f"0,{steps},,9.0,0.0")  # the best checkpoint's metrics, after the last step
        (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
        if ended:
            results = {"metrics": {"val/loss": 0.5, "val/accuracy": 0.75, "val/f1/7": 1.0}}
            results |= {"steps": steps, "seconds": steps * SPEED, "parameters": 1234, "net": "MLP"}
            (folder / "results.json").write_text(json.dumps(results))
        return folder

    return made_run


def labels(*folders: Path) -> list[str]:
    runs = [compare.read_run(folder) for folder in folders]
    return compare.labels(runs, compare.config_differences(runs))


def error_of(arguments: list[Path], capsys) -> str:
    with pytest.raises(SystemExit) as exit:
        compare.main([*map(str, arguments)])
    assert exit.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("compare: error: ")
    assert message.count("\n") == 1
    return message


def test_comparison_writes_figure_and_table(made_run: Callable, tmp_path, capsys) -> None:
    runs = [made_run("mnist-cnn_plain/001"), made_run("mnist-cnn_augmented/001", lr=0.2)]
    output = compare.main([*map(str, runs)])
    assert output == tmp_path / "runs/comparison"
    table = (output / "comparison.md").read_text()
    printed = capsys.readouterr().out
    for text in (table, printed):
        for word in ("mnist-cnn_plain", "mnist-cnn_augmented", "1,234", "0.7500", "model.lr"):
            assert word in text
        assert "val/f1/7" not in text
    assert "| model.lr | 0.1 | 0.2 |" in table
    assert "| seconds | 5.0 | 5.0 |" in table
    assert "seed_everything" not in table  # equal in both runs
    figure = np.asarray(Image.open(output / "comparison.png").convert("L"))
    assert figure.std() > 10


def test_labels_are_experiments_or_config_differences(made_run: Callable) -> None:
    plain, wide = made_run("plain/001"), made_run("wide/001", width=3)
    assert labels(plain, wide) == ["plain", "wide"]
    fast = made_run("plain/002", lr=0.5)
    assert labels(plain, fast) == ["lr 0.1", "lr 0.5"]
    assert labels(plain, fast, wide) == [
        "plain: lr 0.1, width –",
        "plain: lr 0.5, width –",
        "wide: lr 0.1, width 3",
    ]
    same = made_run("plain/003")
    assert labels(plain, same) == ["plain/001", "plain/003"]
    other = made_run("plain/004", lr=1, a=1, b=2, c=3)
    assert labels(plain, other) == ["plain/001", "plain/004"]


def test_callbacks_are_listed_only_where_runs_differ(made_run: Callable) -> None:
    runs = [made_run("a/001"), made_run("b/001", callbacks=["callbacks.Mistakes"])]
    found = compare.config_differences([compare.read_run(run) for run in runs])
    assert found == {"trainer.callbacks": [None, ["Mistakes"]]}


def test_curves_are_drawn_against_steps_and_seconds(made_run: Callable) -> None:
    folders = [made_run("a/001"), made_run("b/001", steps=10), made_run("c/001", ended=False)]
    runs = [compare.read_run(folder) for folder in folders]
    metrics = compare.common_metrics(runs)
    assert metrics == ["loss", "accuracy"]
    figure = compare.comparison_figure(runs, metrics)
    steps, seconds = figure.axes[:2]
    lines = [line.get_xydata() for line in steps.get_lines()]
    assert len(lines) == 6  # train and val of three runs
    assert lines[0].tolist() == [[step, 1 / (step + 1)] for step in range(20)]
    assert lines[1].tolist() == [[step, 2 / (step + 1)] for step in (4, 9, 14, 19)]
    timed = [line.get_xydata() for line in seconds.get_lines()]
    assert len(timed) == 4  # the unfinished run has no time per step
    assert timed[0][:, 0].tolist() == [step * SPEED for step in range(20)]
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(named) == 5


def test_unfinished_run_reports_last_logged_values(made_run: Callable) -> None:
    run = compare.read_run(made_run("a/001", ended=False))
    rows = {row[0]: row[1] for row in compare.table_rows([run], {})}
    assert rows["val/loss"] == f"{2 / 20:.4f}"
    assert "seconds" not in rows


def test_runs_that_cannot_be_compared_are_user_errors(made_run: Callable, tmp_path, capsys) -> None:
    run, words = made_run("a/001"), made_run("b/001", losses=False)
    assert "two or more different" in error_of([run], capsys)
    assert "two or more different" in error_of([run, run], capsys)
    assert "nowhere is not a run folder" in error_of([run, tmp_path / "nowhere"], capsys)
    assert str(run) in error_of([words, run.parent], capsys)  # the runs of the experiment
    message = error_of([run, words], capsys)
    assert "no metric in common" in message
    assert "accuracy, loss" in message
    assert "words" in message
    (run / "results.json").write_text("{")
    assert "is damaged" in error_of([words, run], capsys)
    assert not (tmp_path / "runs/comparison").exists()


def test_differences_contain_nested_and_missing_keys() -> None:
    configs = [{"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"b": 1, "c": [2]}}]
    assert differences(configs) == {"a.c": [[1], [2]], "d": [2, None]}


def test_noisy_series_is_drawn_with_its_trend() -> None:
    figure = compare.Figure()
    axes = figure.subplots()
    values = [step % 2 for step in range(200)]
    draw_series(axes, range(200), values, True, color="k")
    raw, trend = (line.get_ydata() for line in axes.get_lines())
    assert list(raw) == values
    assert abs(trend[20:-20] - 0.5).max() < 0.1
