"""Samples during training: in the run folder, on the console, at the loggers."""

from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torch.optim import AdamW
from torch.utils.data import DataLoader

from callbacks import TextSamples
from datamodules.text.tokenizers import character_tokenizer
from engine.errors import UserError
from modules import Classifier, LanguageModel
from modules.nets import CNN, GPT

LETTERS = "abcdefgh [/b]\n"
STEPS = 6


def loader(n: int) -> DataLoader:
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(len(set(LETTERS)), (n, 4, 9), generator=draw)
    return DataLoader([(row[:, :-1], row[:, 1:]) for row in tokens], batch_size=None)


def fit(folder, *samples, loggers=(), **options) -> LanguageModel:
    torch.manual_seed(0)
    tokenizer = character_tokenizer(LETTERS)
    net = GPT(len(set(LETTERS)), context=8, num_layers=1, num_heads=2, dim=16, dropout=0.3)
    task = LanguageModel(net, partial(AdamW, lr=0.01), tokenizer=tokenizer.to_str())
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    fixed = {"enable_checkpointing": False, "max_steps": STEPS, "val_check_interval": 3}
    logger = [CSVLogger(folder, name="", version=""), *loggers]
    trainer = L.Trainer(**quiet | fixed | options, logger=logger, callbacks=list(samples))
    trainer.fit(task, loader(STEPS), loader(2))
    return task


def written(folder) -> dict[str, str]:
    files = (folder / "samples").glob("*.txt")
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(files)}


def test_sample_is_written_after_each_validation(tmp_path):
    fit(tmp_path, TextSamples("ab", max_new_tokens=20))
    texts = written(tmp_path)
    assert list(texts) == ["step-3.txt", "step-6.txt"]  # none of the sanity check, at step 0
    for text in texts.values():
        assert text.startswith("ab")
        assert len(text) == len("ab") + 20 + len("\n")


def test_sample_is_generated_by_the_current_model(tmp_path):
    options = {"temperature": 0.5, "top_k": 3, "seed": 4}
    task = fit(tmp_path, TextSamples("ab", 20, **options))
    text = "ab" + task.generate("ab", 20, **options) + "\n"
    assert written(tmp_path)["step-6.txt"] == text


@pytest.mark.parametrize("accumulate", [1, 2])
def test_sample_is_written_every_n_optimizer_steps(tmp_path, accumulate):
    options = {"accumulate_grad_batches": accumulate, "max_epochs": 2, "val_check_interval": 1.0}
    fit(tmp_path, TextSamples("ab", 5, every_n_steps=2), **options)
    assert list(written(tmp_path)) == ["step-2.txt", "step-4.txt", "step-6.txt"]


@pytest.mark.parametrize("every_n_steps", [None, 1])
def test_sampling_does_not_change_training(tmp_path, every_n_steps):
    samples = TextSamples("ab", 20, every_n_steps=every_n_steps)
    with_samples = fit(tmp_path / "with", samples)
    random_state = torch.get_rng_state()
    without = fit(tmp_path / "without")
    assert torch.equal(torch.get_rng_state(), random_state)
    assert with_samples.training == without.training
    for a, b in zip(with_samples.parameters(), without.parameters(), strict=True):
        assert torch.equal(a, b)


def test_panel_shows_the_text_without_markup(tmp_path, capsys):
    fit(tmp_path, TextSamples("a[/b]", 5, temperature=0.1))
    shown = capsys.readouterr().out
    assert "step 3" in shown
    assert "a[/b]" in shown  # rich markup otherwise
    fit(tmp_path, TextSamples("ab", 5, panel=False))
    assert "step 3" not in capsys.readouterr().out


@pytest.mark.slow
def test_loggers_get_the_text(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    logged = []
    monkeypatch.setattr(
        WandbLogger, "log_text", lambda self, key, **table: logged.append((key, table))
    )
    loggers = [
        TensorBoardLogger(tmp_path / "tb", name="", version=""),
        MLFlowLogger(
            "test",
            tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
            artifact_location=str(tmp_path / "artifacts"),
        ),
        WandbLogger(save_dir=tmp_path, mode="disabled"),
    ]
    fit(tmp_path, TextSamples("a\nb", 5), loggers=loggers)
    text = written(tmp_path)["step-6.txt"].removesuffix("\n")
    events = event_accumulator.EventAccumulator(str(tmp_path / "tb")).Reload()
    last = events.Tensors("samples/text_summary")[-1]
    assert last.step == 6
    assert last.tensor_proto.string_val[0].decode().replace("    ", "") == text
    logged_file = tmp_path / f"artifacts/{loggers[1].run_id}/artifacts/samples/step-6.txt"
    assert logged_file.read_text() == text
    assert logged[-1] == ("samples", {"columns": ["step", "text"], "data": [["6", text]]})


def test_prompt_with_unknown_characters_is_a_warning_and_training_runs(tmp_path):
    with pytest.warns(UserWarning, match=r"TextSamples writes nothing: .* prompt 'aZ': .*'Z'"):
        fit(tmp_path, TextSamples("aZ", 5))
    assert written(tmp_path) == {}
    assert (tmp_path / "metrics.csv").exists()


def test_task_without_generate_is_reported_before_training():
    trainer = L.Trainer(
        accelerator="cpu", callbacks=[TextSamples("a")], logger=False, enable_checkpointing=False
    )
    with pytest.raises(UserError, match="TextSamples needs a task with `encode` and `generate`"):
        trainer.fit(Classifier(CNN(num_classes=2)), loader(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"every_n_steps": 0}, "every_n_steps must be at least 1, got 0"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"top_k": 0}, "top_k must be at least 1"),
    ],
)
def test_invalid_arguments_are_reported(arguments, message):
    with pytest.raises(ValueError, match=message):
        TextSamples(**arguments)
