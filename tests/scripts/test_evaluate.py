"""scripts.evaluate: figures that are right, from data that were not touched for them."""

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
    of_each_class,
    with_intervals,
)
from scripts.evaluation.threshold_curves import threshold_figure
from tests.support import ROOT, TINY
from tests.support.synthetic_data import patch_checksums


def drawn(number: int, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits, and labels that are drawn from just the probabilities which these mean."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(number, classes, generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


# The statistics.


def test_the_interval_of_an_accuracy_is_that_of_the_binomial_distribution() -> None:
    logits, labels = drawn(500)
    accuracy = with_intervals(logits, labels, resamples=500, confidence=0.9)["accuracy"]
    assert accuracy.value == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    low, high = binom.interval(0.9, 500, accuracy.value)
    # 0.008: four examples of 500, for as few draws and for whole numbers.
    assert accuracy.low == pytest.approx(low / 500, abs=0.008)
    assert accuracy.high == pytest.approx(high / 500, abs=0.008)


def test_more_examples_make_an_interval_narrower_and_draws_are_fixed() -> None:
    few, many = (
        with_intervals(*drawn(number), resamples=100, confidence=0.95) for number in (100, 1600)
    )
    for name, interval in few.items():
        assert interval.low <= interval.value <= interval.high or name == "ece"  # which is biased
        width = interval.high - interval.low
        assert 2 < width / (many[name].high - many[name].low) < 8  # about 4: the root of 16
    assert few == with_intervals(*drawn(100), resamples=100, confidence=0.95)


def test_classes_and_confusion_are_those_of_scikit_learn() -> None:
    logits, labels = drawn(200)
    predicted = logits.argmax(1)
    theirs = classification_report(labels, predicted, output_dict=True)
    for k, row in enumerate(of_each_class(logits, labels)):
        for ours, name in (("precision",) * 2, ("recall",) * 2, ("f1", "f1-score")):
            assert row[ours] == pytest.approx(theirs[str(k)][name], abs=1e-6)
        assert row["support"] == theirs[str(k)]["support"]
    assert (confusion(logits, labels) == confusion_matrix(labels, predicted)).all()


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_the_temperature_undoes_what_made_a_net_too_sure(factor: float) -> None:
    logits, labels = drawn(20_000)
    temperature = fit_temperature(factor * logits, labels)
    assert temperature == pytest.approx(factor, rel=0.03)  # 20,000 labels leave that open
    best = F.cross_entropy(factor * logits / temperature, labels)
    for other in (0.95, 1.05):
        assert F.cross_entropy(factor * logits / (other * temperature), labels) > best


def answers(right: list[int], number: int = 60) -> Tensor:
    """Logits of a net that is right on these examples, whose label is 0."""
    wrong = ~torch.isin(torch.arange(number), torch.tensor(right))
    return F.one_hot(wrong.long(), 2).float()


def test_mcnemar_looks_only_at_where_two_nets_differ() -> None:
    labels = torch.zeros(60, dtype=torch.long)
    first, second = answers([*range(30), 31]), answers([*range(30), *range(40, 53)])
    test = mcnemar(first, second, labels)
    assert (test.only_first, test.only_second) == (1, 13)
    # Of 14 tosses one or none, or the other way round: 2 (1 + 14) / 2^14.
    assert test.p_value == pytest.approx(30 / 2**14)
    assert mcnemar(second, first, labels).p_value == pytest.approx(test.p_value)
    assert mcnemar(first, first, labels).p_value == 1


def test_a_figure_of_many_classes_names_the_worst_and_skips_the_absent() -> None:
    logits, labels = drawn(300, classes=14)
    labels[labels == 3] = 4
    logits[:, 5] = torch.randn(300)  # what it says of 5 means nothing
    figure = threshold_figure(logits, labels, [f"class {k}" for k in range(14)])
    left, right = figure.axes
    told = [text.get_text() for text in left.get_legend().get_texts()]
    assert len(told) == 10
    assert told[0].startswith("class 5, AUC 0.")
    assert not any(name.startswith("class 3,") for name in told)
    colours = [
        {line.get_label().split(",")[0]: line.get_color() for line in a.lines}
        for a in (left, right)
    ]
    assert all(colours[0][name] == colours[1][name] for name in ("class 5", told[1].split(",")[0]))


# The program.


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Best checkpoints of two runs on the digits."""
    runs = tmp_path_factory.mktemp("runs")
    nets = (("modules.nets.CNN", 1), ("modules.nets.MLP", 3))
    flags = ("--trainer.enable_progress_bar", "false", "--runs_dir", str(runs))
    folders = []
    for net, epochs in nets:
        told = ("--model.net", net, "--trainer.max_epochs", str(epochs))
        name = ("--experiment", net.rpartition(".")[2])
        folders.append(train.main(["fit", "--config", str(TINY), *told, *name, *flags]))
    return [folder / "checkpoints/best.ckpt" for folder in folders if folder]


@pytest.fixture(scope="module")
def looked(trained: list[Path]) -> tuple[Path, dict]:
    arguments = [word for path in trained for word in ("--checkpoint", str(path))]
    folder = evaluate.main([*arguments, "--resamples", "20"])
    return folder, json.loads((folder / "results.json").read_text())


def test_it_finds_what_the_run_itself_found(trained: list[Path], looked: tuple) -> None:
    folder, results = looked
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


def test_the_temperature_is_that_of_the_validation_split(
    trained: list[Path], looked: tuple
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
    asked = looked[1]["checkpoints"]["CNN-001"]
    assert asked["temperature"] == pytest.approx(fit_temperature(logits, labels), rel=1e-4)
    assert asked["after"]["loss"] != asked["before"]["loss"]


def test_the_report_tells_everything_and_its_figures_are_pictures(looked: tuple) -> None:
    folder, results = looked
    text = (folder / "report.md").read_text()
    for name, found in results["checkpoints"].items():
        accuracy = found["metrics"]["accuracy"]
        assert f"{accuracy['value']:.4f} [{accuracy['low']:.4f}, {accuracy['high']:.4f}]" in text
        pictures = {path.stem for path in (folder / name).glob("*.png")}
        assert pictures == {
            "confusion_matrix", "threshold_curves", "reliability_diagram",
            "reliability_diagram_scaled", "mistakes",
        }  # fmt: skip
        for stem in pictures:
            assert f"({name}/{stem}.png)" in text
            pixels = np.asarray(Image.open(folder / name / f"{stem}.png").convert("L"))
            assert pixels.std() > 5
    (test,) = results["mcnemar"]
    assert f"| {test['only_first']} | {test['only_second']} | {test['p_value']:.3g} |" in text


def test_a_split_that_validates_has_no_temperature(trained: list[Path], tmp_path: Path) -> None:
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
    assert "No temperature" in (folder / "report.md").read_text()


def test_a_config_names_other_data(trained: list[Path], tmp_path: Path, capsys) -> None:
    alone = tmp_path / "net.ckpt"
    alone.write_bytes(trained[0].read_bytes())
    config = ROOT / "configs/digits/cnn.yaml"
    output = ("--output", str(tmp_path / "out"), "--resamples", "10")
    evaluate.main(["-c", str(alone), "--data", str(config), *output])
    assert "360 examples of test" in capsys.readouterr().out


def spoilt(tmp_path: Path, trained: list[Path]) -> dict[str, tuple[list[str], str]]:
    """Wrong command lines, and what is to be told."""
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
        "no run": (["-c", str(alone)], "is in no run folder"),
        "no file": (["-c", "nowhere.ckpt"], "there is no checkpoint at nowhere.ckpt"),
        "classes": (["-c", best, "--data", str(other)], "tells apart 0, 1, 2"),
        "class": (["-c", best, "--data", str(unknown)], "Did you mean 'Digits'?"),
        "no data": (["-c", best, "--data", str(empty)], "is no config with a key `data`"),
        "twice": (["-c", best, "-c", best], "named twice"),
        "few": (["-c", best, "--resamples", "1"], "must be 10 or more"),
    }


@pytest.mark.parametrize(
    "case", ["language", "no run", "no file", "classes", "class", "no data", "twice", "few"]
)
def test_mistakes_are_told_in_a_sentence(
    case: str, trained: list[Path], tmp_path: Path, capsys, small_data: Callable, monkeypatch
) -> None:
    monkeypatch.setenv("DATA_DIR", str(small_data))
    arguments, told = spoilt(tmp_path, trained)[case]
    with pytest.raises(SystemExit) as exit:
        evaluate.main(arguments)
    assert exit.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("evaluate: error: ")
    assert told in text
    assert "Traceback" not in text
    assert not (tmp_path / "out").exists()


# Texts.


@pytest.fixture(scope="module")
def of_texts(tmp_path_factory: pytest.TempPathFactory, made_texts: Path) -> tuple[Path, Path]:
    """Two runs on SST-2 whose nets read words in the same way, or up to another length."""
    folder = tmp_path_factory.mktemp("texts")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="ignore"):
        patch_checksums(made_texts, patch)
        common = (
            *("fit", "--config", ROOT / "configs/sst2/bag_of_words.yaml", "--runs_dir", folder),
            *("--data.data_dir", made_texts, "--data.batch_size", 16, "--trainer.max_epochs", 1),
            *("--trainer.callbacks", "[]", "--trainer.enable_progress_bar", "false"),
        )
        first, second = (
            train.main([*map(str, common), "--data.context", str(context)]) for context in (64, 9)
        )
    return first, second


def test_a_text_classifier_is_looked_at_and_its_mistakes_are_words(
    of_texts: tuple[Path, Path], small_texts: Path
) -> None:
    best = of_texts[0] / "checkpoints/best.ckpt"
    folder = evaluate.main(["--checkpoint", str(best), "--resamples", "10"])
    found = json.loads((folder / "results.json").read_text())["checkpoints"]
    ((name, one),) = found.items()
    told = json.loads((of_texts[0] / "results.json").read_text())["metrics"]
    for metric in ("accuracy", "loss", "f1", "auroc"):
        assert one["metrics"][metric]["value"] == pytest.approx(told[f"test/{metric}"], rel=1e-4)
    page = (folder / name / "mistakes.txt").read_text().splitlines()
    wrong = round(50 * (1 - told["test/accuracy"]))
    assert page[0].startswith(f"{wrong} of 50 wrong")
    assert re.match(r"said (negative|positive) \(\d+%\), ", page[2])
    (label,) = [
        r
        for r in (small_texts / "sst2/sentiment-test").read_text().splitlines()
        if r.split("\t")[0].split() == page[3].split()
    ][:1]
    assert f"is {['negative', 'positive'][int(label[-1])]}" in page[2] or "rightly" in page[2]
    picture = np.asarray(Image.open(folder / name / "mistakes.png").convert("RGB")) / 255
    assert picture.std() > 0.03
    assert f"({name}/mistakes.png)" in (folder / "report.md").read_text()


def test_nets_that_read_texts_otherwise_are_not_compared(
    of_texts: tuple[Path, Path], small_texts: Path, capsys
) -> None:
    paths = [str(folder / "checkpoints/best.ckpt") for folder in of_texts]
    with pytest.raises(SystemExit) as exit:
        evaluate.main(["--checkpoint", paths[0], "--checkpoint", paths[1]])
    assert exit.value.code == 2
    assert "evaluated one by one" in capsys.readouterr().err
