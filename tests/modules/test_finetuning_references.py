"""Fine-tuning equals transformers' Trainer, and preference tuning equals TRL's DPOTrainer."""

import csv
import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.optim import SGD

from datamodules import TextTable
from engine.checkpoint.reading import read_checkpoint
from modules import PreferenceModel
from modules.nets import PretrainedCausalLM
from modules.optim import WarmupLinear
from preprocessing.special_tokens import IGNORE_INDEX
from tests.support.huggingface import WORDS, make_model, make_tokenizer, save_model

BATCH = 8


def write_texts(path: Path, number: int = 100) -> Path:
    """Write random sequences of 1 to 12 words with random labels."""
    draw = random.Random(0)
    rows = [
        (" ".join(draw.choices(WORDS, k=draw.randint(1, 12))), draw.randint(0, 1))
        for _ in range(number)
    ]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


class RecordedTrainer(transformers.Trainer):
    """A Trainer that records the loss of each step."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        self.losses = [*getattr(self, "losses", []), loss.item()]
        return loss


@pytest.mark.slow
def test_losses_and_weights_equal_those_of_the_trainer_of_transformers(
    tmp_path: Path, run: Callable[..., Path]
) -> None:
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = make_model("bert", "AutoModelForSequenceClassification", num_labels=2, **no_dropout)
    source = str(save_model(tmp_path / "model", model))
    texts = {"train": str(write_texts(tmp_path / "texts.csv")), "tokenizer": source}
    settings = {**texts, "context": 16, "batch_size": BATCH}
    folder = run(
        *("fit", "--model", "modules.Classifier", "--model.net"),
        *("modules.nets.PretrainedClassifier", "--model.net.pretrained", source),
        *("--model.optimizer", "modules.optim.LayerDecayAdamW", "--model.optimizer.lr", 0.01),
        *("--model.optimizer.weight_decay", 0.1, "--model.optimizer.layer_decay", 1.0),
        *("--model.lr_scheduler", "modules.optim.WarmupLinear"),
        *("--model.lr_scheduler.warmup_fraction", 0.0, "--data", "datamodules.TextTable"),
        *(f"--data.{name}={value}" for name, value in settings.items()),
        *("--trainer.gradient_clip_val", 0.5, "--trainer.max_epochs", 1),
        *("--trainer.log_every_n_steps", 1, "--trainer.accelerator", "cpu"),
        *("--seed_everything", 3, "--test_after_fit", "false"),
    )
    with (folder / "metrics.csv").open() as file:
        ours = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]

    data = TextTable(**settings, seed=3)
    data.setup("fit")
    rows = [
        {"input_ids": ids[mask].tolist(), "labels": int(label)}
        for inputs, labels in data.train_dataloader()
        for ids, mask, label in zip(*inputs.values(), labels, strict=True)
    ]
    theirs = RecordedTrainer(
        model,
        transformers.TrainingArguments(
            str(tmp_path / "theirs"),
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            train_sampling_strategy="sequential",
            learning_rate=0.01,
            weight_decay=0.1,
            max_grad_norm=0.5,
            use_cpu=True,
            report_to="none",
        ),
        train_dataset=rows,
        processing_class=transformers.PreTrainedTokenizerFast(
            tokenizer_object=make_tokenizer(), pad_token="[PAD]"
        ),
    )
    theirs.train()
    assert len(ours) == len(rows) // BATCH == 10
    assert ours == pytest.approx(theirs.losses, rel=1e-5)
    assert max(ours) - min(ours) > 0.1
    weights = read_checkpoint(folder / "checkpoints/last.ckpt")["state_dict"]
    for name, weight in theirs.model.state_dict().items():
        torch.testing.assert_close(weights[f"net.model.{name}"], weight, atol=1e-4, rtol=1e-4)


def test_warmup_starts_one_step_later_in_transformers() -> None:
    """Its first step has the learning rate 0 and changes nothing; otherwise schedules are equal."""
    total, warmup = 20, 4
    optimizers = [SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0) for _ in range(2)]
    ours = WarmupLinear(optimizers[0], warmup / total, total)
    theirs = transformers.get_linear_schedule_with_warmup(optimizers[1], warmup + 1, total + 1)
    expected = [theirs.lr_lambdas[0](step) for step in range(total + 2)]
    assert [0.0, *map(ours.factor, range(total + 1))] == pytest.approx(expected)


@pytest.mark.slow
def test_dpo_equals_a_step_of_trl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trl = pytest.importorskip("trl", reason="the reference for DPO: pip install trl")
    datasets = pytest.importorskip("datasets", reason="TRL needs it")
    policy, reference = (make_model("llama", "AutoModelForCausalLM", seed) for seed in (0, 1))
    words = make_tokenizer()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", eos_token="[SEP]"
    )
    tokenizer.backend_tokenizer.post_processor = None
    pairs = [
        {"prompt": "the film is", "chosen": " very good", "rejected": " bad"},
        {"prompt": "was a film", "chosen": " good", "rejected": " very very bad film"},
    ]
    arguments = trl.DPOConfig(
        str(tmp_path / "trl"),
        per_device_train_batch_size=2,
        beta=0.5,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
    )
    trainer = trl.DPOTrainer(
        deepcopy(policy),
        deepcopy(reference),
        arguments,
        train_dataset=datasets.Dataset.from_list(pairs),
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    expected = trainer.compute_loss(trainer.model, batch)
    expected.backward()

    def task_of(model: Any, name: str) -> PreferenceModel:
        source = str(save_model(tmp_path / name, model))
        return PreferenceModel(PretrainedCausalLM(source, dropout=0.0), beta=0.5)

    tokens, answers = (  # chosen and rejected: (2 B, T) to (B, 2, T)
        batch[name].unflatten(0, (2, -1)).transpose(0, 1)
        for name in ("input_ids", "completion_mask")
    )
    targets = tokens.masked_fill(answers == 0, IGNORE_INDEX)[..., 1:]
    ours = ({"input_ids": tokens[..., :-1], "index": torch.arange(2)}, targets)
    task = task_of(policy, "policy")
    task.reference["train"] = task_of(reference, "reference").log_probs(ours).detach()
    monkeypatch.setattr("modules.preference.should_log", lambda _: False)
    loss = task.training_step(ours, 0)
    loss.backward()
    assert abs(loss.item() - 0.693) > 0.01  # policy and reference differ
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    gradients = {name: p.grad for name, p in trainer.model.named_parameters()}
    assert gradients
    for name, parameter in task.net.model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-6)
