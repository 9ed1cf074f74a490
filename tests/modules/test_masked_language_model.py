"""MaskedLanguageModel: masking, no learning from noise, pretraining, fine-tuning and export."""

import json
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
)

import export
import train
from callbacks import MaskedWords
from callbacks.samples.masked_words import bracket_masked, masked_passage, masked_position
from datamodules import SST2, PackedFiles, PackedIMDB
from datamodules.language_modeling.packed_texts import SeededTrainingSampler, pack
from datamodules.text.tokenizers import train_tokenizer
from engine.errors import UserError
from modules import Classifier, MaskedLanguageModel
from modules.inference.raw_inputs import raw_to_inputs
from modules.masked_language_model import hash_values, mask_tokens
from modules.nets import BertMLM
from preprocessing.special_tokens import IGNORE_INDEX
from tests.support import QUIET, ROOT
from tests.support.resume import Crash, assert_same_run, crash_after
from tests.support.synthetic_data import patch_checksums

PAD, UNK, CLS, SEP, MASK = range(5)
V, T = 60, 32
ORDINARY = torch.arange(5, V)
TINY = (
    *("--model.net.dim", 16, "--model.net.num_heads", 2, "--model.net.num_layers", 1),
    *("--trainer.accelerator", "cpu", "--trainer.precision", "32-true"),
    *("--trainer.log_every_n_steps", 1, "--model.lr_scheduler.warmup_steps", 3),
)
MLM = (
    *("fit", "--config", ROOT / "configs/imdb/bert_mlm.yaml", *TINY, "--model.optimizer.lr", 0.01),
    *("--data.context", 32, "--data.batch_size", 16, "--data.max_vocab_size", 120),
    *("--trainer.max_steps", 40, "--trainer.val_check_interval", 20, "--model.rate", 0.15),
)


def texts(rows: int) -> Tensor:
    """Return rows `[CLS] … [SEP]`; the second half of the last row is padding."""
    tokens = torch.randint(5, V, (rows, T), generator=torch.Generator().manual_seed(0))
    tokens[:, 0], tokens[:, -1] = CLS, SEP
    tokens[0, 7] = UNK
    tokens[-1, T // 2 - 1], tokens[-1, T // 2 :] = SEP, PAD
    return tokens


def tokenizer() -> str:
    """Return a WordPiece tokenizer of at most 60 tokens: letters and pairs of letters."""
    return train_tokenizer("wordpiece", ["abcdefghij klmnop qrstuv wxyz " * 9], V).to_str()


# Masking.


def test_rate_of_ordinary_tokens_is_masked() -> None:
    tokens = texts(3000)
    masked = mask_tokens(tokens, torch.arange(3000), ORDINARY, MASK, 0.15)
    chosen = masked.targets != IGNORE_INDEX
    counts = chosen.sum(dim=1)
    assert set(counts[1:-1].tolist()) == {4}  # 15 % of 30, rounded to even
    assert counts[-1] == 2  # of 14
    originals = tokens.gather(1, masked.positions)
    assert torch.equal(originals[chosen], masked.targets[chosen])
    assert originals[chosen].min() >= 5
    at_positions = torch.zeros_like(tokens, dtype=torch.bool).scatter(1, masked.positions, chosen)
    assert at_positions.sum() == chosen.sum()  # none is chosen twice
    assert torch.equal(masked.tokens[~at_positions], tokens[~at_positions])


def test_chosen_tokens_are_masked_replaced_or_unchanged_in_80_10_10_percent() -> None:
    tokens = texts(6000)
    masked = mask_tokens(tokens, torch.arange(6000) + 2**40, ORDINARY, MASK, 0.15)
    chosen = masked.targets != IGNORE_INDEX
    shown = masked.tokens.gather(1, masked.positions)[chosen]
    n = len(shown)
    masked_share = (shown == MASK).float().mean().item()
    unchanged_share = (shown == masked.targets[chosen]).float().mean().item()
    # A random token equals the original once in 55. Tolerance: five standard deviations.
    for share, expected in ((masked_share, 0.8), (unchanged_share, 0.1 + 0.1 / len(ORDINARY))):
        assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / n)
    drawn = shown[(shown != MASK) & (shown != masked.targets[chosen])]
    counts = drawn.bincount(minlength=V)
    assert not counts[:5].any()
    mean = len(drawn) / len(ORDINARY)
    assert (counts[5:] - mean).abs().max() < 5 * math.sqrt(mean)


def test_all_positions_are_masked_equally_often() -> None:
    tokens = texts(6000)[1:-1]
    masked = mask_tokens(tokens, torch.arange(len(tokens)), ORDINARY, MASK, 0.15)
    chosen = masked.targets != IGNORE_INDEX
    counts = masked.positions[chosen].bincount(minlength=T)[1:-1].float()
    expected = len(tokens) * 4 / 30
    assert (counts - expected).abs().max() < 5 * math.sqrt(expected)
    # Neighbors are masked together as often as independent draws: 4 of 30, then 3 of 29.
    at_positions = torch.zeros(len(tokens), T).scatter(1, masked.positions, chosen.float())[:, 1:-1]
    together = (at_positions[:, 1:] * at_positions[:, :-1]).mean().item()
    assert together == pytest.approx(4 / 30 * 3 / 29, rel=0.1)


def test_masking_depends_on_draw_only() -> None:
    tokens, draw = texts(64), torch.arange(64) * 7
    full = mask_tokens(tokens, draw, ORDINARY, MASK, 0.15)
    part = mask_tokens(tokens[10:20], draw[10:20], ORDINARY, MASK, 0.15)
    assert torch.equal(part.tokens, full.tokens[10:20])
    assert torch.equal(part.positions, full.positions[10:20])
    other = mask_tokens(tokens, draw + 1, ORDINARY, MASK, 0.15)
    same = (other.positions.sort(dim=1).values == full.positions.sort(dim=1).values).all(dim=1)
    assert same.float().mean() < 0.1


def test_hash_values_are_uniform_and_streams_differ() -> None:
    draw = torch.tensor([0, 1, 2**32, 2**62 - 1, 5])
    numbers = torch.stack([hash_values(draw, 5000, stream) for stream in range(3)])
    assert numbers.min() >= 0
    assert numbers.max() < 2**32
    assert len(numbers.unique()) > 0.9999 * numbers.numel()
    tenths = (numbers * 10 // 2**32).flatten(0, 1)
    for row in tenths:  # 500 expected per tenth; tolerance: five standard deviations
        assert (row.bincount(minlength=10) - 500).abs().max() < 5 * math.sqrt(500)
    centered = numbers.flatten(0, 1).double() / 2**32 - 0.5
    correlation = torch.corrcoef(centered) - torch.eye(15)
    assert correlation.abs().max() < 5 / math.sqrt(5000)


def test_text_without_ordinary_tokens_has_no_targets() -> None:
    tokens = torch.full((1, T), PAD)
    masked = mask_tokens(tokens, torch.zeros(1, dtype=torch.int64), ORDINARY, MASK, 0.15)
    assert torch.equal(masked.tokens, tokens)
    assert (masked.targets == IGNORE_INDEX).all()


# Learning.


class Losses(L.Callback):
    """Record the loss of every training step, computed before its weight update."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.losses.append(outputs["loss"].item())


def losses_of(batches: list[Tensor], lr: float = 0.003) -> list[float]:
    """Return the training losses of a small BERT that sees each batch once."""
    torch.manual_seed(0)
    tokenizer_json = tokenizer()
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


# The data.


def test_packed_rows_contain_the_full_text() -> None:
    tokens = torch.arange(10, 31, dtype=torch.int32)  # 21 tokens, six per row
    rows = pack(tokens, 8, CLS, SEP, PAD)
    assert rows.shape == (4, 8)
    assert (rows[:, 0] == CLS).all()
    assert (rows[:3, -1] == SEP).all()
    assert rows[3].tolist() == [CLS, 28, 29, 30, SEP, PAD, PAD, PAD]
    assert torch.equal(rows[rows >= 10], tokens)
    without_padding = pack(tokens[:12], 8, CLS, SEP, PAD)
    assert without_padding[:, [0, -1]].tolist() == [[CLS, SEP]] * 2


def test_blank_line_separates_texts_with_any_line_ending(tmp_path: Path) -> None:
    lines = [f"text number {n}\nof two lines\n\n" for n in range(20)]
    documents = []
    for name, end in (("unix", "\n"), ("windows", "\r\n")):
        (tmp_path / f"{name}.txt").write_bytes("".join(lines).replace("\n", end).encode())
        data = PackedFiles([str(tmp_path / f"{name}.txt")], tokenizer="wordpiece")
        documents.append([text.split() for text in data.documents("train")])
    assert documents[0] == documents[1]
    assert len(documents[0]) == 19  # the last is cut where the validation split begins


@pytest.fixture
def reviews(small_texts: Path) -> PackedIMDB:
    return PackedIMDB(data_dir=str(small_texts), max_vocab_size=120, context=32, batch_size=16)


def test_masking_differs_between_epochs_but_not_between_validations(reviews: PackedIMDB) -> None:
    reviews.setup("fit")

    def draws(loader, epoch: int | None = None) -> dict[tuple, int]:
        if epoch is not None:
            loader.sampler.set_epoch(epoch)
        draw_of_row = {}
        for inputs, tokens in loader:
            assert torch.equal(inputs["input_ids"], tokens)
            assert torch.equal(inputs["attention_mask"], tokens != PAD)
            rows = map(tuple, tokens.tolist())
            draw_of_row |= dict(zip(rows, inputs["draw"].tolist(), strict=True))
        return draw_of_row

    first, second = (draws(reviews.train_dataloader(), epoch) for epoch in (0, 1))
    assert first == draws(reviews.train_dataloader(), 0)
    assert not set(first.values()) & set(second.values())
    assert draws(reviews.val_dataloader()) == draws(reviews.val_dataloader())
    assert sorted(draws(reviews.val_dataloader()).values()) == list(
        range(len(reviews.splits["val"]))
    )
    reviews.seed = 1
    assert not set(first.values()) & set(draws(reviews.train_dataloader(), 0).values())


def test_masking_does_not_depend_on_the_number_of_processes() -> None:
    def global_batches(world_size: int) -> list[tuple]:
        samplers = [SeededTrainingSampler(50, 8, 3, rank, world_size) for rank in range(world_size)]
        for sampler in samplers:
            sampler.set_epoch(2)
        return [
            (
                torch.cat([rows for rows, _ in step]).tolist(),
                torch.cat([draws for _, draws in step]),
            )
            for step in zip(*samplers, strict=True)
        ]

    for (rows, draws), (other_rows, other_draws) in zip(
        global_batches(1), global_batches(2), strict=True
    ):
        assert rows == other_rows
        assert torch.equal(draws, other_draws)
        assert torch.equal(draws - draws[0], torch.tensor(rows) - rows[0])


def test_tokenizer_is_trained_on_training_texts_only(tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    path.write_text("the cat sat\n\n" * 90 + "zebra quagga okapi\n\n" * 10)
    data = PackedFiles([str(path)], val_fraction=0.15, context=8, batch_size=4)
    data.setup("fit")
    assert data.tokenizer.token_to_id("cat") is not None
    assert not [name for name in data.tokenizer.get_vocab() if "z" in name or "q" in name]
    assert "unknown) of 8 tokens each" in data.summary


def test_wordpiece_training_is_deterministic() -> None:
    text = ["the film is good and the cast is bad", "another film with words worth reading"]
    vocab = train_tokenizer("wordpiece", text * 3, 60).get_vocab()
    names = sorted(vocab, key=vocab.__getitem__)
    continuations = [name for name in names if re.fullmatch("##.", name)]
    assert names[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert continuations == sorted(continuations)
    assert names[5 : 5 + len(continuations)] == continuations
    assert len(names) == 60


# End to end.


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, synthetic_texts: Path) -> Path:
    """Run the masked language modeling config with a small network; return the run folder."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="ignore"):
        patch_checksums(synthetic_texts, patch)
        where = ("--data.data_dir", synthetic_texts, "--runs_dir", folder)
        arguments = [*MLM, *where, "--trainer.enable_progress_bar", "false"]
        return train.main([*map(str, arguments)])


def test_val_metrics_are_means_over_all_masked_tokens(
    pretrained: Path, reviews: PackedIMDB
) -> None:
    metrics = json.loads((pretrained / "results.json").read_text())["metrics"]
    best = pretrained / "checkpoints/best.ckpt"
    task = MaskedLanguageModel.load_from_checkpoint(best, weights_only=True).eval()
    reviews.batch_size = 3  # masking does not depend on the batch size
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
    predictions = task.fill_mask("the [MASK] is a [MASK] one", top=3)
    assert [len(words) for words in predictions] == [3, 3]
    for words in predictions:
        probabilities = [p for _, p in words]
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 < sum(probabilities) <= 1
    with pytest.raises(UserError, match=r"no \[MASK\]"):
        task.fill_mask("nothing is hidden")


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


FINE = (
    *("fit", "--config", ROOT / "configs/sst2/bert_finetuned.yaml", *TINY),
    *("--data.context", 32, "--data.batch_size", 16, "--trainer.callbacks", "[]"),
)


def test_encoder_initializes_a_classifier_and_new_weights_are_reported(
    pretrained: Path, run: Callable[..., Path], small_texts: Path, tmp_path: Path
) -> None:
    best = pretrained / "checkpoints/best.ckpt"
    frozen = ("--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", 0.0)
    with pytest.warns(UserWarning, match="--init_from") as warned:
        folder = run(
            *FINE,
            *("--data.data_dir", small_texts, "--data.tokenizer", best, "--init_from", best),
            *(*frozen, "--model.lr_scheduler", "null", "--trainer.max_steps", 1),
        )
    (message,) = [str(w.message) for w in warned if "--init_from" in str(w.message)]
    assert "17 of 21 weights are from" in message
    assert "newly initialized: net.head.bias, net.head.weight, net.pooler.bias" in message
    assert "unused weights: net.decoder_bias" in message
    classifier, language_model = (
        torch.load(path, weights_only=True)["state_dict"]
        for path in (folder / "checkpoints/last.ckpt", best)
    )
    encoder = [name for name in language_model if name.startswith("net.encoder.")]
    assert encoder
    for name in encoder:
        assert torch.equal(classifier[name], language_model[name]), name
    # The exported classifier returns the same logits for raw texts.
    export.main(
        [
            *("--checkpoint", str(folder / "checkpoints/last.ckpt")),
            *("--format", "huggingface", "--output", str(tmp_path / "hf")),
        ]
    )
    net = AutoModelForSequenceClassification.from_pretrained(tmp_path / "hf").eval()
    hf_tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    raw = ["A superb film!", "the plot is<br />awful and the cast is dull"]
    task = Classifier.load_from_checkpoint(folder / "checkpoints/last.ckpt", weights_only=True)
    with torch.inference_mode():
        logits = net(**hf_tokenizer(raw, return_tensors="pt", padding=True)).logits
        torch.testing.assert_close(
            task.eval()(raw_to_inputs(raw, None, task.tokenizer, task.device)),
            logits,
            atol=1e-5,
            rtol=0,
        )
    assert net.config.id2label == {0: "negative", 1: "positive"}


def test_init_from_with_another_vocabulary_is_an_error(
    pretrained: Path, refused: Callable[..., str], small_texts: Path
) -> None:
    best = pretrained / "checkpoints/best.ckpt"
    error = refused(
        *(*FINE, "--data.data_dir", small_texts, "--init_from", best),
        *("--data.tokenizer", "wordpiece", "--data.max_vocab_size", 100),
    )
    assert "was trained with another vocabulary" in error
    assert "and ids differ ('" in error
    assert f"--data.tokenizer {best}" in error


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such.ckpt", "choose one of words, characters, bpe, wordpiece, bert, or the path"),
        ("broken.json", "cannot read a tokenizer from broken.json"),
        ("letters.json", r"has no [PAD] or"),
    ],
)
def test_unavailable_tokenizer_is_an_error(
    refused: Callable[..., str], small_texts: Path, tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "broken.json").write_text("{")
    letters = json.loads(tokenizer())
    letters["added_tokens"] = []
    letters["model"] |= {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    letters["post_processor"] = None
    (tmp_path / "letters.json").write_text(json.dumps(letters))
    config = ("--config", ROOT / "configs/sst2/bag_of_words.yaml")
    assert message in refused(
        *("fit", *config, "--data.data_dir", small_texts, "--data.tokenizer", name)
    )


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


def test_hugging_face_folder_is_fine_tuned(
    run: Callable[..., Path], small_texts: Path, tmp_path: Path
) -> None:
    """The folder has a config, weights and, as in older releases, a vocab.txt."""
    folder = tmp_path / "bert"
    folder.mkdir()
    vocab = Tokenizer.from_str(tokenizer()).get_vocab()
    names = sorted(vocab, key=vocab.__getitem__)
    (folder / "vocab.txt").write_text("\n".join(names) + "\n")
    config = BertConfig(
        vocab_size=len(names),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=40,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    arguments = (
        *("fit", "--config", ROOT / "configs/sst2/bert_scratch.yaml", *TINY),
        *("--data.context", 32, "--data.data_dir", small_texts, "--trainer.max_steps", 2),
        *("--data.tokenizer", folder, "--trainer.callbacks", "[]"),
    )
    with pytest.warns(
        UserWarning, match="loaded 17 of 21 weights from .*; newly initialized: pooler"
    ):
        trained = run(*arguments, "--model.net.pretrained", folder)
    for path in folder.iterdir():  # the checkpoint does not need the folder
        path.unlink()
    task = Classifier.load_from_checkpoint(trained / "checkpoints/last.ckpt", weights_only=True)
    assert task.classify("a film")[0][0] in ("negative", "positive")


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


# Parts of the figure.


def test_masked_word_is_a_full_word_near_the_middle() -> None:
    pieces = ["[CLS]", "before", "the", "film", "##ing", "of", "another", "un", "##til", "[SEP]"]
    assert masked_position(pieces) == 6
    assert masked_position(["[CLS]", "a", "[SEP]"]) == 1
    passage = masked_passage(pieces, 6, ["another", "this"], torch.tensor([0.5, 0.25]))
    assert passage.title == "predicted another (50%), this (25%)"
    assert passage.correct
    assert bracket_masked(passage)[3:7] == ["filming", "of", "[another]", "until"]


def test_data_without_draw_is_a_user_error(pretrained: Path) -> None:
    best = pretrained / "checkpoints/best.ckpt"
    task = MaskedLanguageModel.load_from_checkpoint(best, weights_only=True)
    with pytest.raises(MisconfigurationException, match="a number `draw` for every sequence"):
        task.mask_tokens({"input_ids": texts(2)})
    with pytest.raises(ValueError, match="requires `tokenizer`"):
        MaskedLanguageModel(task.net)


def test_masked_words_require_a_masked_language_model(
    refused: Callable[..., str],
) -> None:
    with pytest.raises(ValueError, match="at least 1, got 8, 0"):
        MaskedWords(top=0)
    config = ("--config", ROOT / "configs/digits/mlp.yaml")
    error = refused("fit", *config, "--trainer.callbacks=[callbacks.MaskedWords]")
    assert "MaskedWords needs a task with `mask_id`" in error
