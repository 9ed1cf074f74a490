"""MaskedLanguageModel: no learning from noise, pretraining, resuming and export."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoModelForMaskedLM, AutoTokenizer

import export
from datamodules import SST2, PackedIMDB
from engine.errors import UserError
from modules import MaskedLanguageModel
from modules.nets import BertMLM
from preprocessing.special_tokens import IGNORE_INDEX
from tests.support import QUIET, ROOT
from tests.support.masked_language_model import MLM, TINY, T, small_tokenizer, texts
from tests.support.resume import Crash, assert_same_run, crash_after


class Losses(L.Callback):
    """Record the loss of every training step, computed before its weight update."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.losses.append(outputs["loss"].item())


def losses_of(batches: list[Tensor], lr: float = 0.003) -> list[float]:
    """Return the training losses of a small BERT that sees each batch once."""
    torch.manual_seed(0)
    tokenizer_json = small_tokenizer()
    size = Tokenizer.from_str(tokenizer_json).get_vocab_size()
    net = BertMLM(size, context=T, num_layers=1, num_heads=2, dim=32, dropout=0.0)
    task = MaskedLanguageModel(
        net, lambda parameters: torch.optim.Adam(parameters, lr=lr), tokenizer=tokenizer_json
    )
    batches_with_draws = [
        ({"input_ids": tokens, "draw": torch.arange(len(tokens)) + 1000 * step}, tokens)
        for step, tokens in enumerate(batches)
    ]
    recorder = Losses()
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", callbacks=[recorder], **QUIET)
    trainer.fit(task, DataLoader(batches_with_draws, batch_size=None))
    return recorder.losses


def noise(steps: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(3)
    return [torch.randint(5, 35, (32, T), generator=random) for _ in range(steps)]


@pytest.mark.slow
def test_loss_on_noise_is_not_below_the_entropy() -> None:
    losses = torch.tensor(losses_of(noise(120))[60:])
    # The best prediction for [MASK] (80 %) is uniform. For a visible token (20 %), it gives the
    # token its probability of being unchanged and spreads the rest over the other 29.
    unchanged = 0.1 + 0.1 / 30
    visible = 0.2
    floor = 0.8 * math.log(30) - visible * (
        unchanged / visible * math.log(unchanged / visible)
        + (1 - unchanged / visible) * math.log((1 - unchanged / visible) / 29)
    )
    assert floor < math.log(30)
    # Tolerance: four standard errors of the mean, exceeded once in 30,000.
    assert losses.mean() > floor - 4 * losses.std() / math.sqrt(len(losses))
    assert losses.mean() < math.log(30) + 0.3  # no divergence


def test_one_batch_is_overfitted() -> None:
    random = torch.Generator().manual_seed(1)
    row = torch.randint(5, 35, (1, T), generator=random)
    losses = losses_of([row.repeat(32, 1)] * 120, lr=0.01)
    assert losses[0] > 3
    assert np.mean(losses[-10:]) < 0.5


@pytest.mark.slow
def test_val_metrics_are_means_over_all_masked_tokens(pretrained: Path, small_texts: Path) -> None:
    metrics = json.loads((pretrained / "results.json").read_text())["metrics"]
    best = pretrained / "checkpoints/best.ckpt"
    task = MaskedLanguageModel.load_from_checkpoint(best, weights_only=True).eval()
    # Masking does not depend on the batch size.
    reviews = PackedIMDB(data_dir=str(small_texts), max_vocab_size=120, context=32, batch_size=3)
    reviews.setup("fit")
    nats, correct = [], []
    for inputs, tokens in reviews.val_dataloader():
        masked = task.mask_tokens(inputs)
        with torch.no_grad():
            log_probs = task(inputs | {"input_ids": masked.tokens}).log_softmax(dim=-1)  # (B, T, V)
        for row, positions in enumerate(masked.positions.tolist()):
            for position, target in zip(positions, masked.targets[row].tolist(), strict=True):
                if target != IGNORE_INDEX:
                    assert target == tokens[row, position]
                    nats.append(-log_probs[row, position, target].item())
                    correct.append(log_probs[row, position].argmax().item() == target)
    assert len(nats) > 70
    assert metrics["val/loss"] == pytest.approx(np.mean(nats), rel=1e-4)
    assert metrics["val/accuracy"] == pytest.approx(np.mean(correct), rel=1e-4)
    assert metrics["val/perplexity"] == pytest.approx(math.exp(metrics["val/loss"]), rel=1e-5)
    assert metrics["val/loss"] < math.log(120) - 0.5  # better than uniform over the vocabulary


def test_checkpoint_alone_fills_masks(pretrained: Path) -> None:
    best = pretrained / "checkpoints/best.ckpt"
    task = MaskedLanguageModel.load_from_checkpoint(best, weights_only=True)
    text = "the [MASK] is a [MASK] one"
    predictions = task.fill_mask(text, top_k=3)
    assert [len(words) for words in predictions] == [3, 3]
    for words in predictions:
        probabilities = [p for _, p in words]
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 < sum(probabilities) <= 1
    with pytest.raises(UserError, match=r"no \[MASK\]"):
        task.fill_mask("nothing is hidden")
    several = task.fill_mask(["a [MASK]", text, "a [MASK]"], top_k=3)
    assert [len(masks) for masks in several] == [1, 2, 1]
    for masks, alone in zip(several, ["a [MASK]", text, "a [MASK]"], strict=True):
        for words, expected in zip(masks, task.fill_mask(alone, top_k=3), strict=True):
            assert dict(words) == pytest.approx(dict(expected), rel=1e-4)
    assert len(task.fill_mask(text, top_k=10**6)[0]) == task.tokenizer.get_vocab_size()


def test_figures_show_the_most_probable_words(pretrained: Path) -> None:
    names = sorted(path.name for path in (pretrained / "samples").glob("masked-words-*.txt"))
    assert names == ["masked-words-step-20.txt", "masked-words-step-40.txt"]
    lines = (pretrained / "samples" / names[0]).read_text().splitlines()
    assert re.fullmatch(r"predicted (\S+ \(\d+%\), ){4}\S+ \(\d+%\)", lines[0])
    assert re.search(r"\[[a-z]{5,}\]", lines[1])
    page = (pretrained / "figures/masked_words.html").read_text()
    assert page.count("<p><b") == 8
    assert page.count("<span") == 8  # one colored word per text
    image = np.asarray(Image.open(pretrained / "figures/masked_words.png").convert("RGB")) / 255
    assert image.std() > 0.05


def test_tokenizer_without_mask_is_an_error(refused: Callable[..., str], small_texts: Path) -> None:
    error = refused(*MLM, "--data.data_dir", small_texts, "--data.tokenizer", "words")
    assert "unknown tokenizer 'words': choose one of wordpiece, bert" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--model.rate", 1.5), "rate must be in"),
        (("--data.context", 3), "context must be at least 4"),
    ],
)
def test_invalid_arguments_are_errors(
    refused: Callable[..., str], small_texts: Path, flags: tuple, message: str
) -> None:
    config = ("--config", ROOT / "configs/imdb/bert_mlm.yaml", *TINY)
    assert message in refused("fit", *config, "--data.data_dir", small_texts, *flags)


@pytest.mark.slow
def test_resume_is_bit_exact(run: Callable[..., Path], small_texts: Path) -> None:
    arguments = (
        *(*MLM, "--data.data_dir", small_texts, "--test_after_fit", "false"),
        *("--trainer.max_steps", 12, "--trainer.val_check_interval", 6),
        *("--data.batch_size", 64, "--checkpoint.every_n_steps", 4, "--trainer.callbacks", "[]"),
        *("--model.net.dropout", 0.1, "--trainer.accumulate_grad_batches", 1),
    )
    complete = run(*arguments, "--experiment", "complete")
    with pytest.raises(Crash):
        run(
            *arguments, "--experiment", "interrupted", *crash_after(9)
        )  # one step after a checkpoint
    resumed = run(*arguments, "--experiment", "interrupted", "--resume", "auto")
    assert_same_run(complete, resumed)


def test_exported_model_predicts_the_same_words(pretrained: Path, tmp_path: Path) -> None:
    best = pretrained / "checkpoints/best.ckpt"
    export.main(
        ["--checkpoint", str(best), "--format", "huggingface", "--output", str(tmp_path / "hf")]
    )
    net = AutoModelForMaskedLM.from_pretrained(tmp_path / "hf").eval()
    hf_tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert hf_tokenizer.mask_token == "[MASK]"
    inputs = hf_tokenizer(["the film is [MASK]<br />", "a cast"], return_tensors="pt", padding=True)
    task = MaskedLanguageModel.load_from_checkpoint(best, weights_only=True).eval()
    expected = [
        encoding.ids for encoding in task.tokenizer.encode_batch(["the film is [MASK]<br />"])
    ]
    assert inputs["input_ids"][:1].tolist() == expected
    not_padding = inputs["attention_mask"].bool()
    with torch.inference_mode():
        exported, original = net(**inputs).logits, task(dict(inputs))
    torch.testing.assert_close(exported[not_padding], original[not_padding], atol=1e-5, rtol=0)
    # The data module reads the tokenizer of the folder.
    data = SST2(tokenizer=str(tmp_path / "hf"))
    assert data.tokenizer.get_vocab() == task.tokenizer.get_vocab()


def test_data_without_draw_is_a_user_error(pretrained: Path) -> None:
    best = pretrained / "checkpoints/best.ckpt"
    task = MaskedLanguageModel.load_from_checkpoint(best, weights_only=True)
    with pytest.raises(UserError, match="a number `draw` for every sequence"):
        task.mask_tokens({"input_ids": texts(2)})
    with pytest.raises(ValueError, match="requires `tokenizer`"):
        MaskedLanguageModel(task.net)
