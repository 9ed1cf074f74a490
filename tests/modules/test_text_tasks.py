"""Text classification from end to end: training, resume, figures and predictions."""

import csv
import html
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train
from callbacks import Mistakes, WordAttention
from engine.errors import UserError
from modules import Classifier
from plotting.colored_text import Passage, passages_page, relative_weights, text_figure, wrap_words
from plotting.mistakes import NO_TOKEN, Predictions
from tests.support import ROOT
from tests.support.resume import Crash, crash_after
from tests.support.synthetic_data import CLASS_WORDS, patch_checksums

SMALL = (
    *("--data.batch_size", 16, "--trainer.log_every_n_steps", 1, "--trainer.max_epochs", 4),
    *("--model.net.dim", 16, "--model.net.hidden_size", 12, "--model.lr_scheduler.warmup_steps", 3),
    *("--model.optimizer.lr", 0.01, "--model.net.dropout", 0.1, "--data.context", 24),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, synthetic_texts: Path) -> Path:
    """Run the config of the LSTM with attention with a small network; return the run folder."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="ignore"):
        patch_checksums(synthetic_texts, patch)
        config = ROOT / "configs/sst2/lstm_attention.yaml"
        where = ("--data.data_dir", synthetic_texts, "--runs_dir", folder)
        arguments = ("fit", "--config", config, *where, *SMALL, "--trainer.accelerator", "cpu")
        return train.main([*map(str, arguments), "--trainer.enable_progress_bar", "false"])


@pytest.mark.slow
def test_learnable_classes_are_learned(trained: Path) -> None:
    metrics = json.loads((trained / "results.json").read_text())["metrics"]
    assert metrics["test/accuracy"] > 0.95  # the classes are balanced


def test_checkpoint_alone_classifies_raw_texts(trained: Path) -> None:
    task = Classifier.load_from_checkpoint(trained / "checkpoints/best.ckpt", weights_only=True)
    texts = ["A superb film, MOVING and witty!", "the plot is<br />awful", "", "漢字", "the " * 99]
    predictions = task.classify(texts)
    assert [name for name, _ in predictions[:2]] == ["positive", "negative"]
    assert predictions[0][1] > 0.8
    for text, (name, confidence) in zip(texts, predictions, strict=True):
        (alone,) = task.classify(text)  # padding does not change the result
        assert alone == (name, pytest.approx(confidence, abs=1e-5))
    with pytest.raises(UserError, match=r"takes texts \(str\), got Tensor"):
        task.classify([torch.zeros(1, 8, 8)])


def test_attention_weights_the_decisive_words(trained: Path) -> None:
    page = (trained / "figures/word_attention.html").read_text()
    texts = re.findall(r"<p><b.*?</b><br>\n(.*?)</p>", page, flags=re.DOTALL)
    assert len(texts) == 4  # one per test batch
    decisive, others = [], []
    for text in texts:
        for alpha, word in re.findall(r"#E69F00(\w\w)\">(.*?)</span>", text):
            is_decisive = html.unescape(word) in " ".join(CLASS_WORDS[:2]).split()
            (decisive if is_decisive else others).append(int(alpha, 16))
    assert np.mean(decisive) > 2 * np.mean(others)


def test_figures_and_texts_are_written(trained: Path) -> None:
    for name in ("word_attention", "mistakes", "confusion_matrix", "training_curves"):
        image = np.asarray(Image.open(trained / f"figures/{name}.png").convert("RGB")) / 255
        assert min(image.shape[:2]) > 250, name
        assert image.std() > 0.05, name


def test_mistakes_are_raw_texts_with_their_rows(trained: Path, small_texts: Path) -> None:
    heading, *blocks = (trained / "samples/mistakes.txt").read_text().split("\n\n")
    assert re.match(r"(All|No|The) .*50", heading)
    assert len(blocks) == 32
    rows = (small_texts / "sst2/sentiment-test").read_text().splitlines()
    for block in blocks:
        title, text = block.strip("\n").split("\n")
        row = re.match(r"row (\d+): predicted (?:negative|positive) \(\d+%\), ", title)[1]
        assert text.split() == rows[int(row)].split("\t")[0].split()


def test_predictions_are_in_the_order_of_the_file(
    trained: Path, run: Callable[..., Path], small_texts: Path
) -> None:
    best = trained / "checkpoints/best.ckpt"
    folder = run("predict", "--config", trained / "config.yaml", "--ckpt_path", best)
    rows = list(csv.DictReader((folder / "predictions.csv").open(encoding="utf-8", newline="")))
    lines = (small_texts / "sst2/sentiment-test").read_text().splitlines()
    task = Classifier.load_from_checkpoint(best, weights_only=True)
    expected = [name for name, _ in task.classify([line.split("\t")[0] for line in lines])]
    assert [row["prediction"] for row in rows] == expected
    assert [row["text"] for row in rows] == [line.split("\t")[0].strip() for line in lines]
    assert all(float(r[f"probability_{r['prediction']}"]) == float(r["confidence"]) for r in rows)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    path = folder / "checkpoints/last.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.mark.slow
def test_resume_is_bit_exact(run: Callable[..., Path], small_texts: Path) -> None:
    common = (
        *("fit", "--config", ROOT / "configs/sst2/lstm_attention.yaml", *SMALL),
        *("--data.data_dir", small_texts, "--trainer.max_epochs", 2, "--test_after_fit", "false"),
        *("--checkpoint.every_n_steps", 4, "--trainer.callbacks", "[]", "--data.batch_size", 64),
    )
    complete = run(*common)
    with pytest.raises(Crash):
        run(*common, *crash_after(10))  # in the second epoch
    interrupted = complete.parent / "002"
    resumed = run("fit", "--resume", interrupted)
    assert resumed == interrupted
    for name, tensor in weights(complete).items():
        assert torch.equal(tensor, weights(resumed)[name]), name
    assert (complete / "metrics.csv").read_text() == (resumed / "metrics.csv").read_text()


# Figures.


def test_deepest_color_is_the_largest_weight() -> None:
    passage = Passage("predicted good (99%), correct", True, ["a", "<b>", "c"], [0.1, 0.4, 0.0])
    assert relative_weights(passage).tolist() == pytest.approx([0.25, 1, 0])
    page = passages_page("heading", [passage])
    assert '<span style="background: #E69F0040">a</span>' in page
    assert '<span style="background: #E69F00ff">&lt;b&gt;</span> c</p>' in page
    assert "<b>" not in page.replace("<b style", "")


def test_words_are_wrapped_without_loss() -> None:
    words = ["four", "by", "fours", "x" * 30, "end"]
    lines = wrap_words(words, columns=12)
    assert lines == [[0, 1], [2], [3], [4]]
    assert wrap_words([]) == []


def test_long_text_is_truncated_in_the_figure() -> None:
    figure = text_figure("heading $a$", [Passage("title", False, ["word"] * 300)])
    labels = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert labels[-1] == "…"
    assert 100 < labels.count("word") < 150
    assert r"heading \$a\$" in labels


def test_predictions_for_texts_of_different_lengths_are_concatenated() -> None:
    def predictions(tokens: list[list[int]]) -> Predictions:
        n = len(tokens)
        return Predictions.from_logits(torch.tensor(tokens), torch.zeros(n, 2), torch.zeros(n))

    parts = [predictions([[1, 2]]), predictions([[3, 4, 5], [6, NO_TOKEN, NO_TOKEN]])]
    samples = Predictions.concatenate(parts).samples
    assert samples.tolist() == [[1, 2, -1], [3, 4, 5], [6, -1, -1]]


def test_network_without_attention_gets_a_warning_instead_of_a_figure(
    run: Callable[..., Path], small_texts: Path
) -> None:
    with pytest.warns(UserWarning, match="WordAttention draws nothing"):
        folder = run(
            *("fit", "--config", ROOT / "configs/sst2/bag_of_words.yaml"),
            *("--data.data_dir", small_texts, "--trainer.max_epochs", 1),
            "--trainer.callbacks=[callbacks.WordAttention]",
        )
    assert not (folder / "figures").exists()


def test_invalid_arguments_are_errors() -> None:
    with pytest.raises(ValueError, match="texts must be at least 1, got 0"):
        WordAttention(0)
    with pytest.raises(ValueError, match="rows and columns"):
        Mistakes(0)
