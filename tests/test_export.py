"""export.py, called in this process: what it writes equals the network in transformers."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import export
import generate
from modules import Classifier
from modules.nets import CNN, GPT, RNNLM, Bigram
from tests.support import ROOT
from tests.support.language_models import (
    TEXT,
    TOKENIZERS,
    language_model,
    save,
    user_error,
)


def run(checkpoint, *options) -> None:
    generate.main(["--checkpoint", str(checkpoint), *options])


def export_to(folder: Path, format: str, checkpoint: Path) -> Path:
    options = ["--checkpoint", checkpoint, "--format", format, "--output", folder]
    return export.main([str(option) for option in options])


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_exported_folder_gives_equal_logits_in_transformers(tmp_path, tokenizer):
    model = language_model(tokenizer=tokenizer).eval()
    folder = export_to(tmp_path / "hf", "huggingface", save(model, tmp_path / "best.ckpt"))
    net = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(TEXT)["input_ids"]
    assert tokens == model.encode(TEXT)
    assert tokenizer.decode(tokens) == TEXT
    assert len(tokenizer) == model.net.vocab_size
    batch = torch.tensor([tokens[:16]])
    with torch.inference_mode():
        torch.testing.assert_close(net(batch).logits, model.net(batch)[0], atol=1e-4, rtol=1e-4)
    end = model.tokenizer.token_to_id("<|endoftext|>")
    assert tokenizer.eos_token_id == net.config.eos_token_id == end
    if end is not None:
        assert tokenizer("To<|endoftext|>")["input_ids"][-1] == end


@pytest.mark.parametrize(
    ("tokenizer", "sizes"),
    [
        ("characters", {}),
        ("bpe", {"positions": "rotary"}),  # GPT-NeoX
        (
            "gpt2-like",
            {"positions": "rotary", "norm": "rms", "activation": "swiglu", "bias": False},
        ),
    ],
)
def test_exported_folder_generates_the_same_text(tmp_path, capsys, tokenizer, sizes):
    model = language_model(tokenizer=tokenizer, **sizes)
    folder = export_to(tmp_path / "hf", "huggingface", save(model, tmp_path / "best.ckpt"))
    capsys.readouterr()
    run(folder, "--prompt", "To be", "--seed", "1", "--max_new_tokens", "30")
    assert capsys.readouterr().out == f"To be{model.generate('To be', 30, seed=1)}\n"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("net", [GPT, RNNLM])
def test_safetensors_contain_each_weight_once_and_hyper_parameters(tmp_path, net, tied):
    model = language_model(net, tie_embeddings=tied)
    folder = export_to(tmp_path / "st", "safetensors", save(model, tmp_path / "best.ckpt"))
    path = folder / "model.safetensors"
    with safe_open(path, "pt") as file:
        hyper_parameters = json.loads(file.metadata()["hyper_parameters"])
    assert hyper_parameters["tokenizer"] == model.tokenizer.to_str()
    loaded = net(**hyper_parameters["net"]["init_args"])
    loaded.load_state_dict(load_file(path))
    for name, tensor in model.net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    size = sum(4 * parameter.numel() for parameter in model.net.parameters())
    assert path.stat().st_size < size + 20_000


def test_shared_weights_are_stored_once(tmp_path):
    task = Classifier(CNN(num_classes=10))
    path = save(task, tmp_path / "best.ckpt")
    content = torch.load(path, weights_only=True)
    name = next(name for name in content["state_dict"] if name.startswith("net."))
    content["state_dict"]["net.twin"] = content["state_dict"][name]
    torch.save(content, path)
    folder = export_to(tmp_path / "st", "safetensors", path)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(task.net.state_dict())
        assert file.metadata()["twin"] == name.removeprefix("net.")


@pytest.mark.parametrize("config", ["shakespeare/gpt_small_cpu", "shakespeare/gpt", "source/gpt"])
def test_gpt_of_each_config_loads_in_transformers(tmp_path, config):
    config_values = yaml.safe_load((ROOT / f"configs/{config}.yaml").read_text())["model"][
        "init_args"
    ]
    sizes = {"num_layers": 2, "num_heads": 2, "dim": 16, "context": 16}
    task = language_model(**config_values["net"]["init_args"] | sizes)
    folder = export_to(tmp_path / "hf", "huggingface", save(task, tmp_path / "task"))
    reference = AutoModelForCausalLM.from_pretrained(folder)
    tokens = torch.tensor([task.encode("to be")])
    with torch.inference_mode():
        torch.testing.assert_close(
            reference(tokens).logits, task.eval()(tokens)[0], atol=1e-4, rtol=0
        )


def test_failed_export_is_a_user_error_and_writes_nothing(tmp_path, capsys):
    good = save(language_model(), tmp_path / "good")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    for format, checkpoint, folder, message in (
        ("huggingface", save(language_model(Bigram), tmp_path / "b"), "new", "the network Bigram"),
        (
            "huggingface",
            save(language_model(positions="rotary", norm="rms"), tmp_path / "r"),
            "new",
            "cannot export a GPT with rotary positions",
        ),
        ("huggingface", save(Classifier(CNN(num_classes=10)), tmp_path / "c"), "new", "Classifier"),
        ("safetensors", tmp_path / "missing", "new", "there is no checkpoint"),
        ("safetensors", tmp_path / "full", "new", "there is no checkpoint"),
        ("safetensors", good, "full", "is not an empty folder"),
        ("huggingface", good, "good", "is not an empty folder"),
        ("safetensors", good, "good/below", "cannot write to"),
    ):
        options = ["--checkpoint", checkpoint, "--format", format, "--output", tmp_path / folder]
        error = user_error(capsys, export.main, *options)
        assert message in error
        assert not (tmp_path / "new").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]
