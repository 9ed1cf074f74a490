"""QLoRA: a base of 4 bits, checkpoints of the adapter alone, merging into floating point."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from torch import nn
from torch.nn import functional as F

from engine.checkpoint.reading import load_task, read_checkpoint
from modules import LanguageModel
from modules.adapters import LoRA, QLoRA
from modules.adapters.layers import adapted_layers, remove_adapter
from modules.adapters.nf4 import NF4Linear
from modules.nets import PretrainedCausalLM
from tests.support import ROOT
from tests.support.configs import ONE_STEP
from tests.support.huggingface import make_chat_folder, make_model, save_model
from tests.support.resume import Crash, assert_same_run, crash_after
from tests.support.synthetic_data import make_squad

TOKENS = torch.randint(5, 64, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net(tmp_path: Path) -> PretrainedCausalLM:
    folder = save_model(tmp_path / "llama", make_model("llama", "AutoModelForCausalLM"))
    return PretrainedCausalLM(str(folder))


def test_linear_layers_have_4_bits_and_only_the_adapter_is_trained(net) -> None:
    weight = net.model.model.layers[0].mlp.up_proj.weight.detach().clone()
    head = net.model.lm_head
    QLoRA(rank=2).apply(net)
    layers = adapted_layers(net)
    assert len(layers) == 14
    assert all(isinstance(layer.get_base_layer(), NF4Linear) for layer in layers.values())
    assert net.model.lm_head is head
    assert all(("lora_" in n) == p.requires_grad for n, p in net.named_parameters())
    base = layers["model.model.layers.0.mlp.up_proj"].get_base_layer()
    assert base.weight.numel() == weight.numel() / 2  # bytes
    rounded = dequantize_4bit(*quantize_4bit(weight, quant_type="nf4", compress_statistics=True))
    x = torch.randn(3, 16)
    torch.testing.assert_close(base(x), F.linear(x, rounded))
    with torch.autocast("cpu", torch.bfloat16):
        assert base(x).dtype == torch.bfloat16
    assert base(x).dtype == torch.float32


def test_evaluation_changes_neither_weights_nor_gradients(net) -> None:
    QLoRA(rank=2).apply(net)
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        net.eval()(TOKENS)
    assert all(torch.equal(weight, before[name]) for name, weight in net.state_dict().items())
    net.train()(TOKENS)[0].square().sum().backward()
    gradients = [p.grad for n, p in net.named_parameters() if "lora_B" in n]
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_gradients_are_those_of_lora_on_the_rounded_weights(net, tmp_path: Path) -> None:
    def gradients(net: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        for name, parameter in sorted(net.named_parameters()):
            if "lora_" in name:
                parameter.data = 0.1 * torch.randn_like(parameter)
        net(TOKENS)[0].square().sum().backward()
        return {n: p.grad for n, p in net.named_parameters() if p.requires_grad}

    other = PretrainedCausalLM(str(tmp_path / "llama"))
    LoRA(rank=2).apply(other)
    for layer in adapted_layers(other).values():
        weight = layer.get_base_layer().weight
        parts = quantize_4bit(weight.data, quant_type="nf4", compress_statistics=True)
        weight.data = dequantize_4bit(*parts)
    QLoRA(rank=2).apply(net)
    expected = gradients(other)
    found = gradients(net)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name])


def test_merged_network_is_in_floating_point_and_has_the_same_logits(net) -> None:
    QLoRA(rank=2).apply(net)
    for name, parameter in net.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    before, _ = net(TOKENS)
    remove_adapter(net, merge=True)
    assert not any(isinstance(module, NF4Linear) for module in net.modules())
    assert type(net.model.model.layers[0].mlp.up_proj) is nn.Linear
    torch.testing.assert_close(net(TOKENS)[0], before, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_checkpoint_holds_the_adapter_and_resume_is_bit_exact(tmp_path: Path, run) -> None:
    base = make_chat_folder(tmp_path / "model", max_position_embeddings=512)
    arguments = (
        *("fit", "--config", ROOT / "configs/instruct/smollm2_squad.yaml", *ONE_STEP),
        *("--model.net.pretrained", base, "--data.tokenizer", base, "--data.batch_size", 1),
        *("--model.adapter", "modules.adapters.QLoRA", "--model.adapter.rank", 2),
        *("--data.data_dir", make_squad(tmp_path / "data"), "--test_after_fit", "false"),
        *("--trainer.limit_train_batches", 2, "--trainer.max_epochs", 2, "--trainer.max_steps", 4),
        *("--checkpoint.every_n_steps", 1, "--trainer.val_check_interval", 2),
        *("--trainer.log_every_n_steps", 1),
    )
    uninterrupted = run(*arguments, "--experiment", "uninterrupted")
    with pytest.raises(Crash):
        run(*arguments, "--experiment", "stopped", *crash_after(3))
    resumed = run(*arguments, "--experiment", "stopped", "--resume", "auto")
    assert_same_run(uninterrupted, resumed)
    checkpoint = resumed / "checkpoints/last.ckpt"
    saved = read_checkpoint(checkpoint)
    assert all("lora_" in name for name in saved["state_dict"])
    assert saved["base"]["pretrained"] == str(base)
    plain = LanguageModel(PretrainedCausalLM(str(base)), adapter=LoRA(rank=2))
    assert plain.base == saved["base"]  # of the weights before they are quantized
    task = load_task(checkpoint, LanguageModel, "a test")
    assert any(isinstance(module, NF4Linear) for module in task.net.modules())
    for name, weight in saved["state_dict"].items():
        assert torch.equal(task.state_dict()[name], weight)


def test_base_of_a_checkpoint_is_refused(tmp_path: Path, run, capsys) -> None:
    source = ("fit", "--config", ROOT / "configs/source/gpt.yaml", *ONE_STEP)
    source += ("--config", ROOT / "configs/size/gpt-nano.yaml", "--trainer.callbacks", "null")
    source += ("--test_after_fit", "false", "--data.context", 16, "--data.batch_size", 2)
    base = run(*source) / "checkpoints/last.ckpt"
    adapter = ("--model.adapter", "modules.adapters.QLoRA")
    with pytest.raises(SystemExit, match="2"):
        run(*source, *adapter, "--init_from", base)
    assert "--init_from: QLoRA quantizes the weights" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run(*source, *adapter)
    assert "QLoRA quantizes the weights that the network loads itself" in capsys.readouterr().err


def test_missing_bitsandbytes_is_one_message(net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "modules.adapters.nf4")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match=r'QLoRA needs bitsandbytes: pip install "stepladder\['):
        QLoRA(rank=2).apply(net)
