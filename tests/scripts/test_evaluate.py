"""scripts.evaluate: statistics against references, and the report of trained checkpoints."""

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy.stats import binom
from sklearn.metrics import classification_report, confusion_matrix
from torch import Tensor
from torch.nn import functional as F

import train
from engine.checkpoint.reading import load_task
from modules import Classifier
from scripts import evaluate
from scripts.evaluation.statistics import (
    confusion,
    fit_temperature,
    mcnemar,
    per_class_metrics,
    with_intervals,
)
from scripts.evaluation.threshold_curves import threshold_figure
from tests.support import ROOT, TINY
from tests.support.synthetic_data import patch_checksums


def calibrated(number: int, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return logits, and labels sampled from their softmax."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(number, classes, generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


# Statistics.


@pytest.mark.slow
def test_interval_of_accuracy_agrees_with_the_binomial_distribution() -> None:
    logits, labels = calibrated(500)
    accuracy = with_intervals(logits, labels, resamples=500, confidence=0.9)["accuracy"]
    assert accuracy.value == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    low, high = binom.interval(0.9, 500, accuracy.value)
    # 0.008 is four examples of 500: few resamples, and counts are integers.
    assert accuracy.low == pytest.approx(low / 500, abs=0.008)
    assert accuracy.high == pytest.approx(high / 500, abs=0.008)


def test_intervals_narrow_with_more_examples_and_are_reproducible() -> None:
    few, many = (
        with_intervals(*calibrated(number), resamples=100, confidence=0.95)
        for number in (100, 1600)
    )
    for name, interval in few.items():
        assert interval.low <= interval.value <= interval.high or name == "ece"  # ECE is biased
        width = interval.high - interval.low
        assert 2 < width / (many[name].high - many[name].low) < 8  # about 4 = sqrt(16)
    assert few == with_intervals(*calibrated(100), resamples=100, confidence=0.95)


def test_per_class_metrics_and_confusion_match_scikit_learn() -> None:
    logits, labels = calibrated(200)
    predicted = logits.argmax(1)
    theirs = classification_report(labels, predicted, output_dict=True)
    for k, row in enumerate(per_class_metrics(logits, labels)):
        for ours, name in (("precision",) * 2, ("recall",) * 2, ("f1", "f1-score")):
            assert row[ours] == pytest.approx(theirs[str(k)][name], abs=1e-6)
        assert row["support"] == theirs[str(k)]["support"]
    assert (confusion(logits, labels) == confusion_matrix(labels, predicted)).all()


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_temperature_recovers_the_scale_of_the_logits(factor: float) -> None:
    logits, labels = calibrated(20_000)
    temperature = fit_temperature(factor * logits, labels)
    assert temperature == pytest.approx(factor, rel=0.03)  # sampling error of 20,000 labels
    best = F.cross_entropy(factor * logits / temperature, labels)
    for other in (0.95, 1.05):
        assert F.cross_entropy(factor * logits / (other * temperature), labels) > best


def logits_correct_on(examples: list[int], number: int = 60) -> Tensor:
    """Return logits that are correct on these examples, whose label is 0."""
    wrong = ~torch.isin(torch.arange(number), torch.tensor(examples))
    return F.one_hot(wrong.long(), 2).float()


def test_mcnemar_uses_only_examples_where_models_differ() -> None:
    labels = torch.zeros(60, dtype=torch.long)
    first = logits_correct_on([*range(30), 31])
    second = logits_correct_on([*range(30), *range(40, 53)])
    test = mcnemar(first, second, labels)
    assert (test.only_first, test.only_second) == (1, 13)
    # P(at most 1 or at least 13 of 14 coin tosses) = 2 (1 + 14) / 2^14.
    assert test.p_value == pytest.approx(30 / 2**14)
    assert mcnemar(second, first, labels).p_value == pytest.approx(test.p_value)
    assert mcnemar(first, first, labels).p_value == 1


def test_threshold_figure_names_the_worst_classes_and_skips_absent_ones() -> None:
    logits, labels = calibrated(300, classes=14)
    labels[labels == 3] = 4
    logits[:, 5] = torch.randn(300)  # class 5 is predicted at random
    figure = threshold_figure(logits, labels, [f"class {k}" for k in range(14)])
    left, right = figure.axes
    entries = [text.get_text() for text in left.get_legend().get_texts()]
    assert len(entries) == 10
    assert entries[0].startswith("class 5, AUC 0.")
    assert not any(name.startswith("class 3,") for name in entries)
    colors = [
        {line.get_label().split(",")[0]: line.get_color() for line in a.lines}
        for a in (left, right)
    ]
    assert all(colors[0][name] == colors[1][name] for name in ("class 5", entries[1].split(",")[0]))


# The command.


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the best checkpoints of two runs on the digits."""
    runs = tmp_path_factory.mktemp("runs")
    nets = (("modules.nets.CNN", 1), ("modules.nets.MLP", 3))
    flags = ("--trainer.enable_progress_bar", "false", "--runs_dir", str(runs))
    folders = []
    for net, epochs in nets:
        arguments = ("--model.net", net, "--trainer.max_epochs", str(epochs))
        name = ("--experiment", net.rpartition(".")[2])
        folders.append(train.main(["fit", "--config", str(TINY), *arguments, *name, *flags]))
    return [folder / "checkpoints/best.ckpt" for folder in folders if folder]


@pytest.fixture(scope="module")
def evaluated(trained: list[Path]) -> tuple[Path, dict]:
    arguments = [word for path in trained for word in ("--checkpoint", str(path))]
    folder = evaluate.main([*arguments, "--resamples", "20"])
    return folder, json.loads((folder / "results.json").read_text())


@pytest.mark.slow
def test_metrics_equal_those_of_the_run(trained: list[Path], evaluated: tuple) -> None:
    folder, results = evaluated
    assert folder == trained[0].parent.parent / "evaluation"
    assert list(results["checkpoints"]) == ["CNN-001", "MLP-001"]
    assert (results["split"], results["examples"]) == ("test", 360)
    for path, found in zip(trained, results["checkpoints"].values(), strict=True):
        recorded = json.loads((path.parent.parent / "results.json").read_text())["metrics"]
        for name in ("accuracy", "loss", "f1", "precision", "recall", "auroc", "ece"):
            assert found["metrics"][name]["value"] == pytest.approx(
                recorded[f"test/{name}"], abs=1e-5
            )
        assert np.trace(found["confusion_matrix"]) == round(360 * recorded["test/accuracy"])


def test_temperature_is_fitted_on_the_validation_split(
    trained: list[Path], evaluated: tuple
) -> None:
    from datamodules import Digits

    data = Digits()
    data.setup("fit")
    task = load_task(trained[0], Classifier, "")
    with torch.inference_mode():
        found = [
            (task(inputs), labels)
            for inputs, labels in (
                data.on_after_batch_transfer(b, 0) for b in data.val_dataloader()
            )
        ]
    logits, labels = (torch.cat(values).clone() for values in zip(*found, strict=True))
    reported = evaluated[1]["checkpoints"]["CNN-001"]
    assert reported["temperature"] == pytest.approx(fit_temperature(logits, labels), rel=1e-4)
    assert reported["after"]["loss"] != reported["before"]["loss"]


def test_report_contains_all_metrics_and_figures(evaluated: tuple) -> None:
    folder, results = evaluated
    text = (folder / "report.md").read_text()
    for name, found in results["checkpoints"].items():
        accuracy = found["metrics"]["accuracy"]
        assert f"{accuracy['value']:.4f} [{accuracy['low']:.4f}, {accuracy['high']:.4f}]" in text
        figures = {path.stem for path in (folder / name).glob("*.png")}
        assert figures == {
            "confusion_matrix", "threshold_curves", "reliability_diagram",
            "reliability_diagram_scaled", "mistakes",
        }  # fmt: skip
        for stem in figures:
            assert f"({name}/{stem}.png)" in text
            pixels = np.asarray(Image.open(folder / name / f"{stem}.png").convert("L"))
            assert pixels.std() > 5
    (test,) = results["mcnemar"]
    assert f"| {test['only_first']} | {test['only_second']} | {test['p_value']:.3g} |" in text


def test_validation_split_has_no_temperature(trained: list[Path], tmp_path: Path) -> None:
    folder = evaluate.main(
        [
            "-c",
            str(trained[0]),
            "--split",
            "val",
            "--resamples",
            "10",
            "--output",
            str(tmp_path / "v"),
        ]
    )
    results = json.loads((folder / "results.json").read_text())
    assert results["examples"] == 180
    assert results["checkpoints"]["CNN-001"]["temperature"] is None
    assert "No temperature scaling" in (folder / "report.md").read_text()


@pytest.mark.slow
def test_data_option_takes_a_config(trained: list[Path], tmp_path: Path, capsys) -> None:
    alone = tmp_path / "net.ckpt"
    alone.write_bytes(trained[0].read_bytes())
    config = ROOT / "configs/digits/cnn.yaml"
    output = ("--output", str(tmp_path / "out"), "--resamples", "10")
    evaluate.main(["-c", str(alone), "--data", str(config), *output])
    assert "360 examples of test" in capsys.readouterr().out


def wrong_arguments(tmp_path: Path, trained: list[Path]) -> dict[str, tuple[list[str], str]]:
    """Return wrong command lines with a part of the expected message."""
    alone, language = tmp_path / "alone.ckpt", tmp_path / "language.ckpt"
    alone.write_bytes(trained[0].read_bytes())
    torch.save(
        {"state_dict": {}, "hyper_parameters": {"_class_path": "modules.LanguageModel"}}, language
    )
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({"data": "datamodules.FashionMNIST"}))
    unknown = tmp_path / "unknown.yaml"
    unknown.write_text(yaml.safe_dump({"data": "datamodules.Digitss"}))
    empty = tmp_path / "empty.yaml"
    empty.write_text("trainer: {}")
    best, out = str(trained[0]), ["--output", str(tmp_path / "out")]
    return {
        "language": (["-c", str(language), *out], "holds the task modules.LanguageModel"),
        "no run": (["-c", str(alone)], "is not in a run folder"),
        "no file": (["-c", "nowhere.ckpt"], "there is no checkpoint at nowhere.ckpt"),
        "classes": (["-c", best, "--data", str(other)], "has the classes 0, 1, 2"),
        "class": (["-c", best, "--data", str(unknown)], "Did you mean 'Digits'?"),
        "no data": (["-c", best, "--data", str(empty)], "is not a config with a key `data`"),
        "twice": (["-c", best, "-c", best], "given twice"),
        "few": (["-c", best, "--resamples", "1"], "must be at least 10"),
    }


@pytest.mark.parametrize(
    "case", ["language", "no run", "no file", "classes", "class", "no data", "twice", "few"]
)
def test_user_errors_are_one_line(
    case: str, trained: list[Path], tmp_path: Path, capsys, small_data: Callable, monkeypatch
) -> None:
    monkeypatch.setenv("DATA_DIR", str(small_data))
    arguments, message = wrong_arguments(tmp_path, trained)[case]
    with pytest.raises(SystemExit) as exit:
        evaluate.main(arguments)
    assert exit.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("evaluate: error: ")
    assert message in text
    assert "Traceback" not in text
    assert not (tmp_path / "out").exists()


# Texts.


@pytest.fixture(scope="module")
def text_runs(tmp_path_factory: pytest.TempPathFactory, synthetic_texts: Path) -> tuple[Path, Path]:
    """Return two runs on SST-2 with different contexts."""
    folder = tmp_path_factory.mktemp("texts")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="ignore"):
        patch_checksums(synthetic_texts, patch)
        common = (
            *("fit", "--config", ROOT / "configs/sst2/bag_of_words.yaml", "--runs_dir", folder),
            *("--data.data_dir", synthetic_texts, "--data.batch_size", 16),
            *("--trainer.max_epochs", 1),
            *("--trainer.callbacks", "[]", "--trainer.enable_progress_bar", "false"),
        )
        first, second = (
            train.main([*map(str, common), "--data.context", str(context)]) for context in (64, 9)
        )
    return first, second


@pytest.mark.slow
def test_text_classifier_report_lists_mistakes_as_texts(
    text_runs: tuple[Path, Path], small_texts: Path
) -> None:
    best = text_runs[0] / "checkpoints/best.ckpt"
    folder = evaluate.main(["--checkpoint", str(best), "--resamples", "10"])
    found = json.loads((folder / "results.json").read_text())["checkpoints"]
    ((name, one),) = found.items()
    expected = json.loads((text_runs[0] / "results.json").read_text())["metrics"]
    for metric in ("accuracy", "loss", "f1", "auroc"):
        assert one["metrics"][metric]["value"] == pytest.approx(
            expected[f"test/{metric}"], rel=1e-4
        )
    page = (folder / name / "mistakes.txt").read_text().splitlines()
    wrong = round(50 * (1 - expected["test/accuracy"]))
    assert page[0].startswith(f"All {wrong} errors of 50")
    assert re.match(r"row \d+: predicted (negative|positive) \(\d+%\), ", page[2])
    (label,) = [
        r
        for r in (small_texts / "sst2/sentiment-test").read_text().splitlines()
        if r.split("\t")[0].split() == page[3].split()
    ][:1]
    assert f"true {['negative', 'positive'][int(label[-1])]}" in page[2] or "correct" in page[2]
    figure = np.asarray(Image.open(folder / name / "mistakes.png").convert("RGB")) / 255
    assert figure.std() > 0.03
    assert f"({name}/mistakes.png)" in (folder / "report.md").read_text()


def test_checkpoints_with_different_tokenizers_are_not_compared(
    text_runs: tuple[Path, Path], small_texts: Path, capsys
) -> None:
    paths = [str(folder / "checkpoints/best.ckpt") for folder in text_runs]
    with pytest.raises(SystemExit) as exit:
        evaluate.main(["--checkpoint", paths[0], "--checkpoint", paths[1]])
    assert exit.value.code == 2
    assert "evaluate checkpoints with different tokenizers separately" in capsys.readouterr().err
