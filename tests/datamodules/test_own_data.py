"""Train on your own images, labeled texts and tables, then predict unlabeled files."""

import csv
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.synthetic_data import make_image_folder

FAST = ("--trainer.max_epochs", 1, "--trainer.accelerator", "cpu")


def predict(run: Callable[..., Path], fitted: Path, files: Path | str) -> list[dict[str, str]]:
    folder = run(
        *("predict", "--config", fitted / "config.yaml"),
        *("--ckpt_path", fitted / "checkpoints/best.ckpt", "--data.predict", files),
    )
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_own_images_train_and_predict_unlabeled_files(run: Callable, tmp_path: Path) -> None:
    folder = make_image_folder(tmp_path / "images", {"": 10})
    fitted = run(
        *("fit", "--model", "modules.Classifier", "--model.net", "modules.nets.MLP"),
        *("--data", "datamodules.ImageFolder", "--data.folder", folder, *FAST),
        *("--data.image_size", 8, "--data.shorter_side", 10),
    )
    (tmp_path / "new").mkdir()
    (folder / "ants/0.jpg").rename(tmp_path / "new/a.jpg")
    (folder / "bees/0.jpg").rename(tmp_path / "new/b.jpg")
    rows = predict(run, fitted, tmp_path / "new")
    assert [row["path"] for row in rows] == [str(tmp_path / "new" / n) for n in ("a.jpg", "b.jpg")]
    for row in rows:
        probabilities = {name: float(row[f"probability_{name}"]) for name in ("ants", "bees")}
        assert sum(probabilities.values()) == pytest.approx(1, abs=2e-6)
        assert row["prediction"] == max(probabilities, key=probabilities.get)
        assert "true_class" not in row


@pytest.mark.slow
def test_changed_training_data_is_reported_on_resume(run: Callable, tmp_path: Path) -> None:
    lines = [f"a {('fine', 'dull')[n % 2]} film {n},{n % 2}" for n in range(40)]
    table = tmp_path / "reviews.csv"
    table.write_text("\n".join(["text,label", *lines]))
    (tmp_path / "val.csv").write_text("text,label\na fine film,0\n")
    fitted = run(
        *("fit", "--model", "modules.Classifier", "--model.net", "modules.nets.BagOfWords", *FAST),
        *("--data", "datamodules.TextTable", "--data.train", table, "--data.batch_size", 8),
        *("--data.val", tmp_path / "val.csv", "--data.test", tmp_path / "val.csv"),
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run("fit", "--resume", fitted, "--trainer.max_epochs", 2)
        unchanged = [str(one.message) for one in caught]
        table.write_text("\n".join(["text,label", *lines[:-1], lines[-1][:-1] + "0"]))
        run("fit", "--resume", fitted, "--trainer.max_epochs", 3)
    changed = [str(one.message) for one in caught][len(unchanged) :]
    assert not any("TextTable changed" in message for message in unchanged)
    assert any("training data of TextTable changed" in message for message in changed)


TASKS = {
    "class": ("modules.Classifier", ["good", "bad"]),
    "number": ("modules.Regressor", ["1.5", "-2"]),
    "labels": ("modules.MultiLabelClassifier", ["funny; long", "long"]),
}


@pytest.mark.parametrize("target", TASKS)
def test_own_texts_train_and_predict_unlabeled_lines(
    run: Callable, tmp_path: Path, target: str
) -> None:
    model, labels = TASKS[target]
    rows = "".join(f"a {('fine', 'dull')[n % 2]} film {n},{labels[n % 2]}\n" for n in range(40))
    (tmp_path / "reviews.csv").write_text(f"text,label\n{rows}")
    fitted = run(
        *("fit", "--model", model, "--model.net", "modules.nets.BagOfWords", *FAST),
        *("--data", "datamodules.TextTable", "--data.train", tmp_path / "reviews.csv"),
        *("--data.target", target, "--data.batch_size", 8),
    )
    (tmp_path / "new.txt").write_text("a fine film\nfilm\n")
    predicted = predict(run, fitted, tmp_path / "new.txt")
    assert [row["text"] for row in predicted] == ["a fine film", "film"]
    for row in predicted:
        if target == "number":
            assert abs(float(row["prediction"])) < 10
        elif target == "labels":
            names = [n for n in ("funny", "long") if float(row[f"probability_{n}"]) >= 0.5]
            assert row["prediction"] == "; ".join(names)
        else:
            assert row["prediction"] in labels
