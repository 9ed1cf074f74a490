"""scripts.validate_data and scripts.monitor: drift, duplicates, alarms."""

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import ks_2samp

from datamodules import SST2, AGNews
from scripts import monitor, validate_data
from scripts.evaluation.drift import TextFeatures, compare, drift_figure, image_features, psi
from tests.support import REAL_DIR, ROOT

GOOD = ("a fine and moving film", "the best story of the year", "funny, warm and well acted")
BAD = ("a dull and empty film", "the worst story of the year", "tired, cold and badly acted")
NEWS = "Shares of the company rose 14.2% to $31.50 on Tuesday after quarterly results (Reuters)."


def review(label: int, number: int) -> str:
    chosen = random.Random(number)
    parts = (GOOD if label else BAD)[chosen.randrange(3)], str(chosen.randrange(10**6))
    return " ".join(chosen.sample(" ".join(parts).split(), chosen.randrange(4, 7)))


def table(path: Path, rows: list[tuple[str, str]]) -> Path:
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def reviews(number: int, seed: int = 0) -> list[tuple[str, str]]:
    return [
        (review(row % 2, 10_000 * seed + row), ("bad", "good")[row % 2]) for row in range(number)
    ]


def config(folder: Path, train: Path, val: Path) -> Path:
    data = {"class_path": "datamodules.TextTable", "init_args": {"train": str(train)}}
    data["init_args"] |= {"val": str(val), "test": str(val), "batch_size": 8}
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump({"data": data}))
    return path


def test_psi_and_ks_have_their_values() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=5000), generator.normal(size=5000)
    assert psi(first, first) == 0
    assert psi(first, second) < 0.01
    # Two bins, shares 3/4 and 1/4 against 1/4 and 3/4: 2 (3/4 - 1/4) ln 3, up to the half sample.
    ones, threes = np.repeat([0, 1], [300, 100]), np.repeat([0, 1], [100, 300])
    assert psi(ones, threes, bins=2) == pytest.approx(np.log(3), rel=0.02)
    (drift,) = compare({"x": first}, {"x": second + 1})
    assert drift.is_shifted()
    assert drift.ks == ks_2samp(first, second + 1).statistic
    assert not compare({"x": first}, {"x": second})[0].is_shifted()


def test_features_of_texts_and_images() -> None:
    features = TextFeatures(["a film", "a film"])(["a film!", "x1"])
    assert features["characters"].tolist() == [7, 2]
    assert features["rare words"].tolist() == [0, 1]
    assert features["punctuation"].tolist() == [1 / 7, 0]
    assert features["digits"].tolist() == [0, 0.5]
    flat, edge = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    edge[..., 2:] = 255
    found = image_features(torch.cat([flat, edge]))
    assert found["brightness"].tolist() == [0, 0.5]
    assert found["sharpness"].tolist() == [0, pytest.approx(1 / 3)]


def validated(folder: Path, train: list, val: list, *more: str | Path) -> tuple[int, Any]:
    description = config(
        folder, table(folder / "train.jsonl", train), table(folder / "val.jsonl", val)
    )
    output = folder / "out"
    code: Any = 0
    try:
        validate_data.main([*map(str, ("--config", description, "--output", output, *more))])
    except SystemExit as error:
        code = error.code
    return code, json.loads((output / "report.json").read_text())


def test_each_sample_has_its_own_color() -> None:
    values = {"length": np.arange(10.0)}
    (axes,) = drift_figure(values, {"val": values, "test": values}, "splits").axes
    assert len({patch.get_edgecolor() for patch in axes.patches}) == 3


def test_good_data_have_no_errors(tmp_path: Path) -> None:
    new = table(tmp_path / "new.jsonl", reviews(80, seed=3))
    code, report = validated(tmp_path, reviews(120), reviews(60, seed=1), "--new", new)
    assert (code, report["errors"]) == (0, [])
    assert report["splits"]["train"]["labels"] == {"bad": 60, "good": 60}
    assert set(report["drift"]) == {"val", "test", "new"}
    assert (tmp_path / "out/drift.png").stat().st_size > 5000
    assert "| val |" in (tmp_path / "out/report.md").read_text()


def test_leaks_and_drift_are_errors(tmp_path: Path) -> None:
    train = reviews(120)
    leaked = [(text.upper(), label) for text, label in train[:40]] + train[40:50] * 2
    new = table(tmp_path / "new.jsonl", [(f"{NEWS} {row}", "bad") for row in range(60)])
    code, report = validated(tmp_path, train, leaked, "--new", new)
    assert code == 1
    assert report["splits"]["val"]["also_in_train"] == 60
    assert report["splits"]["val"]["duplicates"] >= 10
    errors = "\n".join(report["errors"])
    assert "val: 60 of 60 samples are in the training split, too." in errors
    assert "new: characters drifts" in errors


def sampled(path: Path, texts: list[str], label: str = "good") -> Path:
    lines = [
        {
            "id": f"r{number}",
            "model": "m",
            "version": 1,
            "operation": "classify",
            "inputs": [text],
            "results": [[label, 0.9]],
        }
        for number, text in enumerate(texts)
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"id": "half a li')
    return path


@pytest.mark.slow
def test_news_sent_to_a_model_of_reviews_raise_the_alarm(
    run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = table(tmp_path / "train.jsonl", reviews(120))
    val = table(tmp_path / "val.jsonl", reviews(60, seed=1))
    net = ("--model.net", "modules.nets.BagOfWords", "--model.net.dim", 8)
    folder = run(
        *("fit", "--config", config(tmp_path, train, val), "--model", "modules.Classifier", *net),
        *("--model.optimizer", "torch.optim.AdamW", "--model.optimizer.lr", 0.05),
        *("--trainer.max_epochs", 3),
    )
    served = reviews(80, seed=2)
    given = ["--checkpoint", str(folder / "checkpoints/best.ckpt"), "--output", "out"]
    labels = [{"id": f"r{row}", "label": label} for row, (_, label) in enumerate(served)]
    (tmp_path / "labels.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in labels))
    request = {"route": "/v1/models/{name}/classify", "seconds": 0.01}
    log = [request | {"status": 200}] * 98 + [request | {"status": 503}] * 2
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in log))
    usual = sampled(tmp_path / "usual.jsonl", [text for text, _ in served])
    quality = ["--labels", "labels.jsonl"]
    monitor.main([*given, "--samples", str(usual), *quality])
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["alarms"] == []
    assert report["quality"]["labeled"] == 80
    assert report["quality"]["served"]["accuracy"] > 0.8

    with pytest.raises(SystemExit) as exit:
        monitor.main([*given, "--samples", str(usual), "--log", "log.jsonl"])
    assert exit.value.code == 1
    assert "ALARM: 2.0% of the requests failed" in capsys.readouterr().err
    news = sampled(tmp_path / "news.jsonl", [f"{NEWS} {row}" for row in range(80)])
    with pytest.raises(SystemExit) as exit:
        monitor.main([*given, "--samples", str(news)])
    assert exit.value.code == 1
    assert "ALARM: characters" in capsys.readouterr().err
    few = sampled(tmp_path / "few.jsonl", ["a film"])
    with pytest.raises(SystemExit) as exit:
        monitor.main([*given, "--samples", str(few)])
    assert exit.value.code == 2


@pytest.mark.slow
@pytest.mark.skipif(
    not ((REAL_DIR / "ag_news/test.csv.gz").exists() and (REAL_DIR / "sst2").exists()),
    reason="needs AG News and SST-2 in DATA_DIR",
)
def test_ag_news_sent_to_a_model_of_sst2_raises_the_alarm(
    run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(
        *("fit", "--config", ROOT / "configs/sst2/bag_of_words.yaml", "--test_after_fit", "no"),
        *("--trainer.max_epochs", -1, "--trainer.max_steps", 30, "--trainer.callbacks", "null"),
        *("--trainer.limit_val_batches", 2, "--data.data_dir", REAL_DIR),
    )
    given = ["--checkpoint", str(folder / "checkpoints/last.ckpt"), "--output", "out"]
    data = {"sst2": SST2(data_dir=REAL_DIR), "ag_news": AGNews(data_dir=REAL_DIR)}
    for name, split in (("sst2", "train"), ("ag_news", "test")):
        data[name].prepare_data()
        data[name].setup("fit" if split == "train" else "test")
        texts = list(data[name].texts[split].texts)
        sampled(tmp_path / f"{name}.jsonl", random.Random(0).sample(texts, 200), "positive")
    with contextlib.suppress(SystemExit):  # of this model, 30 steps old, the predictions may drift
        monitor.main([*given, "--samples", str(tmp_path / "sst2.jsonl")])
    usual = json.loads((tmp_path / "out/report.json").read_text())["drift"]
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit:
        monitor.main([*given, "--samples", str(tmp_path / "ag_news.jsonl")])
    assert exit.value.code == 1
    error = capsys.readouterr().err
    news = json.loads((tmp_path / "out/report.json").read_text())["drift"]
    for feature in ("characters", "words"):
        assert f"ALARM: {feature}: PSI" in error
        assert usual[feature]["psi"] < 0.25 < news[feature]["psi"]
