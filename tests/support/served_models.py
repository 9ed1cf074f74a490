"""Tiny models of all tasks that are served, with random weights, as checkpoints and folders."""

from pathlib import Path

import lightning as L
import torch
from tokenizers import Tokenizer
from torch import nn

from datamodules.text.tokenizers import train_bpe
from modules import Classifier, LanguageModel, MaskedLanguageModel, SentenceEncoder
from modules.nets import GPT, MLP, BagOfWords, BertMLM
from preprocessing.texts import with_truncation_and_padding
from tests.support.faulty_net import FaultyNet
from tests.support.huggingface import make_model, make_tokenizer, save_model

TEXT = "Once upon a time there was a film that was good, and a film that was bad. " * 5
LABELS = ["bad", "good"]
CHAT = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def random_weights(task: L.LightningModule) -> L.LightningModule:
    for parameter in task.parameters():
        nn.init.normal_(parameter, std=0.3)
    return task.eval()


def image_classifier() -> L.LightningModule:
    torch.manual_seed(1)
    preprocessing = {"in_channels": 1, "image_size": 8, "mean": [0.5], "std": [0.3]}
    net = MLP(num_classes=3, in_channels=1, image_size=8, hidden_sizes=[8])
    names = ["zero", "one", "two"]
    return random_weights(Classifier(net, 3, class_names=names, preprocessing=preprocessing))


def text_classifier(seed: int = 2) -> L.LightningModule:
    torch.manual_seed(seed)
    tokenizer = with_truncation_and_padding(make_tokenizer(), 32)
    net = BagOfWords(2, Tokenizer.from_str(tokenizer).get_vocab_size(), dim=8)
    return random_weights(Classifier(net, 2, class_names=LABELS, tokenizer=tokenizer))


def language_model(context: int = 64) -> L.LightningModule:
    torch.manual_seed(3)
    tokenizer = train_bpe([TEXT], 280)
    net = GPT(tokenizer.get_vocab_size(), context=context, num_layers=2, num_heads=2, dim=16)
    return random_weights(LanguageModel(net, tokenizer=tokenizer.to_str(), chat_template=CHAT))


def masked_language_model() -> L.LightningModule:
    torch.manual_seed(4)
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens(["[MASK]"])  # which is no word
    net = BertMLM(tokenizer.get_vocab_size(), context=32, num_layers=1, num_heads=2, dim=8)
    return random_weights(MaskedLanguageModel(net, tokenizer=tokenizer.to_str()))


def save(task: L.LightningModule, path: Path) -> Path:
    """Write a checkpoint of a task."""
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(path)
    return path


def make_models(folder: Path) -> dict[str, Path]:
    """Write the models and return their sources by name."""
    encoder = make_model("bert", "AutoModel")
    return {
        "digits": save(image_classifier(), folder / "digits.ckpt"),
        "reviews": save(text_classifier(), folder / "reviews.ckpt"),
        "writer": save(language_model(), folder / "writer.ckpt"),
        "masks": save(masked_language_model(), folder / "masks.ckpt"),
        "embedder": save_model(folder / "embedder", encoder),
    }


def open_embedder(folder: Path) -> SentenceEncoder:
    return SentenceEncoder.from_pretrained(str(folder))


def faulty_classifier() -> L.LightningModule:
    tokenizer = with_truncation_and_padding(make_tokenizer(), 32)
    return Classifier(FaultyNet(), 2, class_names=LABELS, tokenizer=tokenizer).eval()
