"""Adapters leave in the formats of other programs: merged, and as a folder of peft."""

from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
)

import export
import generate
from datamodules.text.tokenizers import character_tokenizer
from engine.checkpoint.reading import init_from, load_task
from modules import Classifier, LanguageModel
from modules.adapters import IA3, Adapter, DoRA, HeadOnly, LoRA, PrefixTuning
from modules.nets import GPT

TOKENS = torch.randint(0, 20, (2, 6), generator=torch.Generator().manual_seed(0))
TEXTS = {"input_ids": TOKENS, "attention_mask": torch.ones_like(TOKENS)}
TOKENIZER = character_tokenizer("abcdefghijklmnopqrst").to_str()
METHODS = [LoRA(rank=2), LoRA(rank=4, use_rslora=True), DoRA(rank=2), IA3()]


class TransformersNet(nn.Module):
    """A network that keeps a model of transformers as `model`."""

    not_in_checkpoints: ClassVar = ("pretrained",)

    def __init__(self, num_classes: int = 2, pretrained: str | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.pretrained = pretrained
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        sizes |= {"vocab_size": 20, "intermediate_size": 16, "num_labels": num_classes}
        config = BertConfig(**sizes)
        self.model = BertForSequenceClassification(config)
        if pretrained is not None:
            self.model = BertForSequenceClassification.from_pretrained(pretrained)

    @property
    def backbone(self) -> nn.Module:
        return self.model.bert

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.model(**inputs).logits


def save(task: Any, path: Path) -> Path:
    """Change what the task trains, so that the adapter has an effect, and write a checkpoint."""
    for parameter in task.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(task.eval())
    trainer.save_checkpoint(path)
    return path


def written(checkpoint: Path, form: str, *flags: str) -> Path:
    folder = checkpoint.with_name(form)
    names = ("--checkpoint", checkpoint, "--format", form, "--output", folder)
    return export.main([*map(str, names), *flags])


@pytest.mark.parametrize("adapter", METHODS, ids=str)
def test_folder_of_peft_has_equal_logits(adapter: Adapter, tmp_path: Path) -> None:
    TransformersNet().model.save_pretrained(tmp_path / "bert")
    net = TransformersNet(pretrained=str(tmp_path / "bert"))
    task = Classifier(net, num_classes=2, adapter=adapter)
    folder = written(save(task, tmp_path / "task.ckpt"), "peft")
    base = BertForSequenceClassification.from_pretrained(tmp_path / "bert").eval()
    before = base(**TEXTS).logits
    opened = PeftModel.from_pretrained(base, folder).eval()
    torch.testing.assert_close(opened(**TEXTS).logits, task(TEXTS))
    assert (task(TEXTS) - before).abs().max() > 1e-3


@pytest.mark.parametrize("adapter", [*METHODS, HeadOnly()], ids=str)
def test_merged_weights_have_equal_logits(adapter: Adapter, tmp_path: Path) -> None:
    def make(adapter: Adapter | None) -> LanguageModel:
        net = GPT(20, 8, num_layers=1, num_heads=2, dim=8, tie_embeddings=False)
        return LanguageModel(net, tokenizer=TOKENIZER, adapter=adapter)

    task = make(adapter)
    init_from(save(make(None), tmp_path / "base.ckpt"), task)
    checkpoint = save(task, tmp_path / "task.ckpt")
    logits = task(TOKENS)[0]
    weights = load_file(written(checkpoint, "safetensors", "--merge") / "model.safetensors")
    plain = GPT(20, 8, num_layers=1, num_heads=2, dim=8, tie_embeddings=False).eval()
    plain.load_state_dict(weights)
    torch.testing.assert_close(plain(TOKENS)[0], logits, atol=1e-5, rtol=0)
    folder = written(checkpoint, "huggingface", "--merge")
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    torch.testing.assert_close(theirs(TOKENS).logits, logits, atol=1e-5, rtol=0)
    again = load_task(
        written(checkpoint, "checkpoint", "--merge") / "model.ckpt", LanguageModel, ""
    )
    torch.testing.assert_close(again(TOKENS)[0], logits, atol=1e-5, rtol=0)
    assert again.adapter is None


def test_generate_applies_an_adapter_to_its_base(tmp_path: Path, capsys) -> None:
    def task(adapter: Adapter | None = None) -> LanguageModel:
        net = GPT(20, 8, num_layers=1, num_heads=2, dim=8)
        return LanguageModel(net, tokenizer=TOKENIZER, adapter=adapter)

    base = save(task(), tmp_path / "base.ckpt")
    adapted = task(LoRA(rank=8, alpha=4000))
    init_from(base, adapted)
    path = save(adapted, tmp_path / "adapter.ckpt")
    words = ["--checkpoint", str(base), "--prompt", "abc", "--greedy", "--max_new_tokens", "5"]
    generate.main(words)
    before = capsys.readouterr().out
    generate.main([*words, "--adapter", str(path)])
    after = capsys.readouterr().out
    assert after == "abc" + adapted.generate("abc", 5, top_k=1) + "\n"
    assert after != before


def test_unsuitable_checkpoints_are_refused(tmp_path: Path, capsys) -> None:
    def refused(task: Any, *arguments: str) -> str:
        with pytest.raises(SystemExit) as exit:
            written(save(task, tmp_path / "task.ckpt"), *arguments)
        assert exit.value.code == 2
        return capsys.readouterr().err

    gpt = {"num_layers": 1, "num_heads": 2, "dim": 8}
    plain = LanguageModel(GPT(20, 8, **gpt), tokenizer=TOKENIZER)
    assert "has no adapter" in refused(plain, "huggingface", "--merge")
    assert "has no adapter" in refused(plain, "peft")
    task = LanguageModel(GPT(20, 8, **gpt), tokenizer=TOKENIZER, adapter=LoRA(rank=2))
    assert "holds an adapter: add --merge" in refused(task, "huggingface")
    assert "not LoRA on GPT" in refused(task, "peft")
    task = LanguageModel(GPT(20, 8, **gpt), tokenizer=TOKENIZER, adapter=PrefixTuning())
    assert "cannot be merged" in refused(task, "safetensors", "--merge")
