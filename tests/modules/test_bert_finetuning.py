"""A pretrained BERT initializes a classifier: from a checkpoint and from a Hugging Face folder."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
)

import export
from modules import Classifier
from modules.inference.raw_inputs import raw_to_inputs
from tests.support import ROOT
from tests.support.masked_language_model import TINY, small_tokenizer

FINE = (
    *("fit", "--config", ROOT / "configs/sst2/bert_finetuned.yaml", *TINY),
    *("--data.context", 32, "--data.batch_size", 16, "--trainer.callbacks", "[]"),
)


@pytest.mark.slow
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
    letters = json.loads(small_tokenizer())
    letters["added_tokens"] = []
    letters["model"] |= {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    letters["post_processor"] = None
    (tmp_path / "letters.json").write_text(json.dumps(letters))
    config = ("--config", ROOT / "configs/sst2/bag_of_words.yaml")
    assert message in refused(
        *("fit", *config, "--data.data_dir", small_texts, "--data.tokenizer", name)
    )


def test_hugging_face_folder_is_fine_tuned(
    run: Callable[..., Path], small_texts: Path, tmp_path: Path
) -> None:
    """The folder has a config, weights and, as in older releases, a vocab.txt."""
    folder = tmp_path / "bert"
    folder.mkdir()
    vocab = Tokenizer.from_str(small_tokenizer()).get_vocab()
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
