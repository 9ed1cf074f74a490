"""Translator: training, sacreBLEU scores, loss and gradients, beam search from a checkpoint."""

import csv
import json
import math
import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import sacrebleu
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader

import generate
import train
from callbacks import CrossAttention, Translations
from callbacks.figures.cross_attention import attention_figure
from datamodules import Multi30k, ReversedWords
from engine.errors import UserError
from modules import Translator
from modules.nets import Seq2Seq, Transformer
from modules.nets.layers.cross_entropy import cross_entropy_sum
from modules.optim.schedules import Noam
from modules.translator import sacrebleu_scores
from tests.support import QUIET, ROOT

TOY = ROOT / "configs/toy/reversed_words.yaml"
SMALL = (
    *("--data.words", 6, "--data.longest", 4, "--data.sizes", "[4000, 20, 100]"),
    *("--data.batch_size", 64, "--model.net.dim", 32, "--trainer.max_epochs", 6),
    *("--model.net.num_layers", 2, "--model.optimizer.lr", 0.005, "--trainer.accelerator", "cpu"),
    *("--model.lr_scheduler.warmup_steps", 30),
)
WORDS = {"words": 6, "longest": 4, "sizes": (4000, 20, 100)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the toy config with a smaller vocabulary and network; return the run folder."""
    folder = tmp_path_factory.mktemp("runs")
    with warnings.catch_warnings(action="ignore"):
        arguments = ("fit", "--config", TOY, *SMALL, "--runs_dir", folder)
        return train.main([*map(str, arguments), "--trainer.enable_progress_bar", "false"])


@pytest.fixture(scope="module")
def task(trained: Path) -> Translator:
    path = trained / "checkpoints/best.ckpt"
    return Translator.load_from_checkpoint(path, weights_only=True)


@pytest.mark.slow
def test_learnable_translation_is_learned(trained: Path) -> None:
    metrics = json.loads((trained / "results.json").read_text())["metrics"]
    assert metrics["test/exact"] >= 0.99
    assert metrics["test/bleu"] > 99
    assert metrics["test/accuracy"] > 0.99
    assert metrics["test/perplexity"] == pytest.approx(math.exp(metrics["test/loss"]), rel=1e-4)


def test_checkpoint_alone_translates_texts(task: Translator) -> None:
    texts = ReversedWords(**WORDS).texts["test"]
    translations = task.translate(texts.sources)
    correct = [text == target for text, target in zip(translations, texts.targets, strict=True)]
    assert np.mean(correct) >= 0.99
    assert task.translate(texts.sources[3]) == translations[3]  # a str gives a str
    assert task.translate(texts.sources[:7], beam_size=1, batch_size=2) == translations[:7]
    assert task.translate([]) == []
    assert task.translate(["", "kalo", "  "])[::2] == [
        "",
        "",
    ]  # an empty source gives an empty translation
    assert task.translate("kalo") != ""
    assert isinstance(task.translate("漢字"), str)


def test_text_beyond_the_context_is_truncated_with_a_warning(task: Translator) -> None:
    with pytest.warns(UserWarning, match="1 of 2 sentences are longer"):
        task.translate(["kalo " * 30, "kalo"])


@pytest.fixture
def predicted(trained: Path, run: Callable[..., Path]) -> Path:
    best = trained / "checkpoints/best.ckpt"
    return run("predict", "--config", trained / "config.yaml", "--ckpt_path", best)


def test_logged_scores_equal_sacrebleu_of_the_written_files(trained: Path, predicted: Path) -> None:
    written = (predicted / "predictions.txt").read_text().splitlines()
    texts = ReversedWords(**WORDS).texts["test"]
    metrics = json.loads((trained / "results.json").read_text())["metrics"]
    bleu = sacrebleu.corpus_bleu(written, [texts.targets])
    assert metrics["test/bleu"] == pytest.approx(bleu.score, abs=1e-3)
    chrf = sacrebleu.corpus_chrf(written, [texts.targets])
    assert metrics["test/chrf"] == pytest.approx(chrf.score, abs=1e-3)
    rows = list(csv.reader((predicted / "predictions.csv").open(encoding="utf-8")))
    assert rows[0] == ["row", "text"]
    assert [row[1] for row in rows[1:]] == written
    samples = (trained / "samples/test.txt").read_text()
    signature = r"nrefs:1\|case:mixed\|eff:no\|tok:13a\|smooth:exp\|version:"
    assert re.match(rf"bleu {metrics['test/bleu']:.2f}  {signature}", samples)


def test_predict_translates_a_file_line_by_line(
    trained: Path, task: Translator, run: Callable[..., Path], tmp_path: Path
) -> None:
    lines = ["kalo kami", "", "karu kalo kalo kami", "kalo"]
    (tmp_path / "sentences.txt").write_text("\n".join(lines) + "\n")
    best = trained / "checkpoints/best.ckpt"
    folder = run(
        *("predict", "--config", trained / "config.yaml", "--ckpt_path", best),
        *("--data.predict", tmp_path / "sentences.txt", "--data.batch_size", 3),
    )
    written = (folder / "predictions.txt").read_text().split("\n")[:-1]
    assert written == task.translate(lines)


def test_samples_and_figures_are_written(trained: Path) -> None:
    steps = sorted((trained / "samples").glob("step-*.txt"), key=lambda path: path.stat().st_mtime)
    assert len(steps) == 6
    blocks = steps[-1].read_text().strip().split("\n\n")
    assert len(blocks) == 10
    pattern = r"source +(.*)\nreference +(.*)\ntranslation +(.*)"
    samples = [re.match(pattern, block).groups() for block in blocks]
    references = dict(zip(*ReversedWords(**WORDS).texts["val"], strict=True))
    assert all(references[source] == reference for source, reference, _ in samples)
    assert sum(reference == translation for _, reference, translation in samples) >= 9
    assert steps[0].read_text() != steps[-1].read_text()
    assert (trained / "samples/test.txt").read_text().count("translation ") == 100
    image = np.asarray(Image.open(trained / "figures/cross_attention.png").convert("RGB")) / 255
    assert min(image.shape[:2]) > 250
    assert image.std() > 0.05


def test_generate_refuses_a_translator(trained: Path, capsys) -> None:
    best = trained / "checkpoints/best.ckpt"
    with pytest.raises(SystemExit) as exit:
        generate.main(["--checkpoint", str(best), "--prompt", "kalo"])
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert "holds the task modules.Translator" in error
    assert "train.py predict" in error
    assert "--data.predict FILE" in error


def test_alignment_weights_sum_to_one(task: Translator) -> None:
    source, written, weights = task.alignment("kalo kami karu")
    assert source == ["kalo", "kami", "karu", "[EOS]"]
    assert len(written) == 4
    assert written[-1] == "[EOS]"
    assert " ".join(written[:-1]) == task.translate("kalo kami karu")
    assert weights.shape == (4, 4)
    assert weights.sum(axis=1) == pytest.approx(np.ones(4))
    assert attention_figure([(source, written, weights)]).axes[0].images


def small_task(**arguments) -> tuple[Translator, ReversedWords]:
    data = ReversedWords(words=4, longest=3, sizes=(64, 8, 8), batch_size=8)
    data.setup("fit")
    size = data.source_vocab_size
    torch.manual_seed(0)
    net = Seq2Seq(size, size, True, dim=8, hidden_size=8, dropout=0.0, attention="luong")
    tokenizers = {
        "source_tokenizer": data.source_tokenizer_json,
        "target_tokenizer": data.target_tokenizer_json,
    }
    return Translator(net, **tokenizers | arguments), data


def trainer(**arguments) -> L.Trainer:
    return L.Trainer(**{"accelerator": "cpu", "max_epochs": 1} | QUIET | arguments)


def test_accumulated_batches_equal_one_large_batch(small_texts: Path) -> None:
    """The two batches of the step differ in width and number of tokens."""
    states = []
    data = Multi30k(
        data_dir=str(small_texts), tokenizer="words", min_count=1, batch_size=16, shared=True
    )
    data.setup("fit")
    pairs = data.splits["train"]
    order = pairs.lengths.argsort()
    parts = [order[:8], order[-8:]]  # the shortest and the longest sentences
    for batches in ([pairs[row] for row in parts], [pairs[torch.cat(parts)]]):
        torch.manual_seed(0)
        size = data.source_vocab_size
        net = Transformer(size, size, True, 64, dim=16, num_heads=2, num_layers=1, dropout=0.0)
        task = Translator(net, optimizer=partial(torch.optim.SGD, lr=1.0), label_smoothing=0.1)
        loader = DataLoader(batches, batch_size=None)
        trainer(accumulate_grad_batches=len(batches), max_steps=1).fit(task, loader)
        states.append(task.net.state_dict())
    for name, weight in states[0].items():
        torch.testing.assert_close(weight, states[1][name], atol=1e-6, rtol=1e-5)


def test_val_loss_is_the_mean_over_all_tokens_without_smoothing() -> None:
    task, data = small_task(label_smoothing=0.4)
    (metrics,) = trainer().validate(task, data, verbose=False)
    nats = tokens = correct = 0.0
    for inputs, targets in data.val_dataloader():
        logits, flat = task.net(inputs).flatten(0, 1), targets.flatten()
        nats += F.cross_entropy(logits, flat, reduction="sum").item()
        tokens += int((flat != -100).sum())
        correct += int((logits.argmax(dim=1) == flat).sum())
    assert metrics["val/loss"] == pytest.approx(nats / tokens, rel=1e-5)
    assert metrics["val/accuracy"] == pytest.approx(correct / tokens)
    assert metrics["val/perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    texts = data.texts["val"]
    greedy = task.translate(texts.sources, beam_size=1)
    bleu = sacrebleu.corpus_bleu(greedy, [texts.targets]).score
    assert metrics["val/bleu"] == pytest.approx(bleu, abs=1e-3)


def test_translate_val_false_skips_translation() -> None:
    task, data = small_task(translate_val=False)
    (metrics,) = trainer().validate(task, data, verbose=False)
    assert "val/bleu" not in metrics
    assert metrics["val/loss"] > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_sum_equals_pytorch(dtype: torch.dtype, smoothing: float) -> None:
    torch.manual_seed(0)
    targets = torch.randint(31, (150,))
    targets[::7] = -100
    results = []
    logits = torch.randn(150, 31, dtype=dtype) * 3
    for function in (
        lambda x: cross_entropy_sum(x, targets, smoothing),
        lambda x: F.cross_entropy(x.float(), targets, label_smoothing=smoothing, reduction="sum"),
    ):
        x = logits.clone().requires_grad_()
        loss_sum = function(x)
        (loss_sum / 7).backward()
        results.append((loss_sum.detach(), x.grad))
    torch.testing.assert_close(results[0][0], results[1][0])
    # bfloat16 has 8 significant bits; the gradient is rounded once.
    atol = 1e-6 if dtype == torch.float32 else 1e-3
    torch.testing.assert_close(results[0][1], results[1][1], atol=atol, rtol=1e-2)
    assert not results[0][1][::7].any()


def test_gradient_of_cross_entropy_sum_equals_finite_differences() -> None:
    logits = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([1, 0, -100, 6, 2])
    nats = cross_entropy_sum(logits, targets, 0.2)
    nats.backward()
    step = 1e-3  # the sum is in float32
    moved = logits.detach().clone()
    moved[3, 6] += step
    numeric = (cross_entropy_sum(moved, targets, 0.2) - nats).item() / step
    assert logits.grad[3, 6].item() == pytest.approx(numeric, abs=5e-3)


def test_noam_follows_its_formula() -> None:
    weights = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(weights.parameters(), lr=2.0)
    schedule = Noam(optimizer, dim=64, warmup_steps=10)
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    for t in (1, 5, 10, 11, 40):
        expected = 2.0 * 64**-0.5 * min(t**-0.5, t * 10**-1.5)
        assert rates[t - 1] == pytest.approx(expected)
    assert max(rates) == rates[9]
    with pytest.raises(ValueError, match="must be at least 1"):
        Noam(optimizer, dim=64, warmup_steps=0)


def test_noam_is_stepped_after_each_optimizer_step() -> None:
    rates = []

    class Rates(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
            rates.append(optimizer.param_groups[0]["lr"])

    task, data = small_task(
        optimizer=partial(torch.optim.Adam, lr=1.0),
        lr_scheduler=partial(Noam, dim=16, warmup_steps=3),
    )
    trainer(callbacks=[Rates()], limit_val_batches=0).fit(task, data)
    assert len(rates) == 8
    assert rates[:3] == pytest.approx([0.25 * t * 3**-1.5 for t in (1, 2, 3)])


@pytest.mark.parametrize(
    "wrong", [{"beam_size": 0}, {"length_penalty": -1.0}, {"label_smoothing": 1.0}]
)
def test_invalid_arguments_are_errors(wrong: dict) -> None:
    with pytest.raises((ValueError, UserError), match=next(iter(wrong))):
        small_task(**wrong)
    with pytest.raises(ValueError, match="sentences must be at least 1"):
        Translations(0)
    with pytest.raises(ValueError, match="sentences must be at least 1"):
        CrossAttention(0)


def test_task_without_tokenizers_refuses_text() -> None:
    task, _ = small_task(source_tokenizer=None, target_tokenizer=None)
    with pytest.raises(UserError, match="it takes tokens instead of text"):
        task.translate("kalo")


def test_network_without_attention_gets_a_warning_instead_of_a_figure(
    run: Callable[..., Path],
) -> None:
    small = ("--data.sizes", "[64, 8, 8]", "--data.batch_size", 16, "--trainer.max_epochs", 1)
    with pytest.warns(UserWarning, match="CrossAttention draws nothing"):
        folder = run(
            *("fit", "--config", TOY, *small, "--model.net", "modules.nets.Seq2Seq"),
            *("--model.net.dim", 8, "--model.net.hidden_size", 8),
        )
    assert not (folder / "figures/cross_attention.png").exists()


def test_sacrebleu_scores_detokenized_text() -> None:
    scores, signatures = sacrebleu_scores(["The cat sat down."], ["The cat sat down ."])
    assert scores["bleu"] == pytest.approx(100)  # 13a splits the full stop from the word
    assert scores["chrf"] == pytest.approx(100)  # chrF ignores whitespace
    assert "tok:13a" in signatures["bleu"]
    assert sacrebleu_scores(["the Cat sat down."], ["The cat sat down."])[0]["bleu"] < 60


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--model.beam_size", 0), "beam_size must be at least 1"),
        (("--model.net.norm", "none"), "norm must be pre or post"),
        (("--data.words", 99), "data.words must be 2 to 36"),
        (
            ("--data", "datamodules.Multi30k", "--data.tokenizer", "bytes"),
            "unknown tokenizer 'bytes'",
        ),
        (("--data.predict", "no.txt"), "there is no file no.txt"),
    ],
)
def test_invalid_option_is_reported_before_training(
    refused: Callable, wrong: tuple, message: str
) -> None:
    assert message in refused("fit", "--config", TOY, *wrong)


def test_translator_cannot_be_sharded() -> None:
    task = Translator(Transformer(20, 20, context=16, dim=8, num_heads=2, num_layers=1))
    task._device_mesh = object()  # type: ignore[assignment]  # as ModelParallelStrategy sets it
    with pytest.raises(UserError, match=r"configs/trainer/ddp\.yaml"):
        task.configure_model()
