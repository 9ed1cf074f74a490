"""Small language models with tokenizers, saved as checkpoints, and errors of commands."""

import json
from pathlib import Path

import lightning as L
import pytest
import torch
from tokenizers import Tokenizer

from datamodules.text.tokenizers import character_tokenizer, train_bpe
from modules import LanguageModel
from modules.nets import GPT

TEXT = "To be, or not to be: that is the question. don't .  two\n\tblanks é 漢字 😀 end ."


def byte_pairs() -> Tokenizer:
    return train_bpe([TEXT * 5], 300)


def gpt2_like() -> Tokenizer:
    """Byte pairs with GPT-2's end of text as the last of the vocabulary."""
    content = json.loads(byte_pairs().to_str())
    content["model"]["vocab"]["<|endoftext|>"] = len(content["model"]["vocab"])
    return Tokenizer.from_str(json.dumps(content))


TOKENIZERS = {
    "characters": lambda: character_tokenizer(TEXT),
    "bpe": byte_pairs,
    "gpt2-like": gpt2_like,
}


def language_model(net=GPT, tokenizer="characters", **sizes) -> LanguageModel:
    torch.manual_seed(0)
    trained_tokenizer = TOKENIZERS[tokenizer]()
    if net is GPT:
        sizes = {"context": 16, "num_layers": 2, "num_heads": 2, "dim": 16} | sizes
    network = net(trained_tokenizer.get_vocab_size(), **sizes)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return LanguageModel(network, tokenizer=trained_tokenizer.to_str())


def save(task: L.LightningModule, path: Path) -> Path:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(path)
    return path


def user_error(capsys, command, *options) -> str:
    """Return the error message; check exit code 2 and an empty stdout."""
    with pytest.raises(SystemExit) as exit:
        command([str(option) for option in options])
    captured = capsys.readouterr()
    assert exit.value.code == 2
    assert captured.out == ""
    assert "Traceback" not in captured.err
    *before, message = captured.err.strip().split("\n")
    assert all("%|" in line for line in before), before  # progress bars of transformers
    return message
