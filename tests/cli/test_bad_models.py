"""Pretrained models, tokenizers and adapters that do not fit: one message, exit code 2."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType
from safetensors.torch import load_file, save_file

from tests.support import ROOT
from tests.support.huggingface import make_gguf, make_model, make_tokenizer, save_model

Change = Callable[[Path], object]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of a tiny BERT for two classes."""
    model = make_model("bert", "AutoModelForSequenceClassification", num_labels=2)
    return save_model(tmp_path / "source", model)


def fit(texts: Path, labels: int, *flags: object) -> tuple[object, ...]:
    """Write texts with labels and return the arguments of a fine-tuning on them."""
    rows = "".join(f"a very good film,{n % labels}\n" for n in range(24))
    texts.write_text(f"text,label\n{rows}")
    return (
        *("fit", "--model", "modules.Classifier", "--model.net"),
        *("modules.nets.PretrainedClassifier", "--model.net.pretrained", "source"),
        *("--data", "datamodules.TextTable", "--data.train", texts, "--data.tokenizer", "source"),
        *("--data.context", 16, "--data.batch_size", 8, "--trainer.accelerator", "cpu"),
        *("--trainer.max_steps", 1, "--test_after_fit", "false", *flags),
    )


def change_weights(folder: Path, old: str, new: str, drop: bool) -> None:
    """Copy the weights of layer `old` to `new`, or drop them."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    layer = {name: weight for name, weight in weights.items() if old in name}
    if drop:
        weights = {name: weight for name, weight in weights.items() if name not in layer}
    else:
        weights |= {name.replace(old, new): weight.clone() for name, weight in layer.items()}
    save_file(weights, path, metadata={"format": "pt"})


def pickle_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def enlarge_tokenizer(folder: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([f"word{n}" for n in range(60)])
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize(
    ("change", "flags", "message"),
    [
        pytest.param(
            lambda folder: (folder / "model.safetensors").unlink(),
            (),
            "source has no weights: there is no model.safetensors",
            id="no weights",
        ),
        pytest.param(
            pickle_weights,
            (),
            "are refused because loading them may execute code; convert them with "
            "python -m scripts.convert_weights source",
            id="pickled weights",
        ),
        pytest.param(
            lambda folder: (folder / "config.json").write_text(json.dumps({"model_type": "new"})),
            (),
            "source holds a 'new', of which transformers",
            id="unknown architecture",
        ),
        pytest.param(
            lambda folder: change_weights(folder, "layer.1.", "", drop=True),
            (),
            "no weights for bert.encoder.layer.1.attention.output.LayerNorm.bias, ",
            id="missing keys",
        ),
        pytest.param(
            lambda folder: change_weights(folder, "layer.1.", "layer.2.", drop=False),
            (),
            "unexpected weights bert.encoder.layer.2.attention.output.LayerNorm.bias, ",
            id="unexpected keys",
        ),
        pytest.param(
            enlarge_tokenizer,
            (),
            "the tokenizer of the data has 73 tokens, the embedding only 64; use the tokenizer of "
            "the model: --data.tokenizer source",
            id="tokenizer",
        ),
        pytest.param(
            lambda folder: make_gguf(folder / "model.gguf", GGMLQuantizationType.Q8_1),
            ("--model.net.pretrained", "source/model.gguf"),
            "the quantization Q8_1 is not supported",
            id="quantization",
        ),
        pytest.param(
            lambda _: None,
            ("--model.net.pretrained", "owner/name"),
            "no model of this name on the Hugging Face Hub or in its cache",
            id="hub name without network",
        ),
        pytest.param(
            lambda _: None,
            ("--model.net.pretrained", "package:absent-package"),
            "'absent-package' is not installed",
            id="package",
        ),
        pytest.param(
            lambda _: None,
            ("--model.net.num_classes", 2),
            "model.net.num_classes is 2 (--model.net.num_classes), but TextTable.num_classes is 3",
            id="labels outside the head",
        ),
    ],
)
def test_model_that_does_not_fit_is_reported(
    source: Path,
    tmp_path: Path,
    refused: Callable[..., str],
    change: Change,
    flags: tuple,
    message: str,
) -> None:
    change(source)
    found = refused(*fit(tmp_path / "texts.csv", 3, *flags))
    assert message in found
    assert ("bert.encoder" in found) == ("… (16 in total)" in found)


def test_labels_and_adapters_of_another_model_are_reported(
    source: Path, tmp_path: Path, run: Callable[..., Path], refused: Callable[..., str]
) -> None:
    lora = ("--config", ROOT / "configs/adapter/lora.yaml")
    folder = run(*fit(tmp_path / "texts.csv", 2, *lora))
    checkpoint = folder / "checkpoints/last.ckpt"
    fit(tmp_path / "other.csv", 3)
    other = ("--data.train", tmp_path / "other.csv")
    message = refused("test", "--ckpt_path", checkpoint, *other)
    assert "was trained on the classes 0, 1, but these data have 0, 1, 2" in message
    save_model(source, make_model("bert", "AutoModelForSequenceClassification", seed=1))
    message = refused("test", "--ckpt_path", checkpoint)
    assert "trained on other weights than source holds now" in message
