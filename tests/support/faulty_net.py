"""A network that fails on certain words, for tests of the server."""

import os
import signal
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.support.huggingface import make_tokenizer

BAD, VERY, IS, WAS = (make_tokenizer().token_to_id(word) for word in ("bad", "very", "is", "was"))
HOLD = "FAULTY_NET_HOLD"  # environment variable: a file; the wait ends when it is removed


class FaultyNet(nn.Module):
    """Raise at `bad`, return nan at `very`, end the process at `is`, wait at `was`."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens = inputs["input_ids"]  # (B, T)
        if (tokens == IS).any():
            os.kill(os.getpid(), signal.SIGKILL)
        if (tokens == BAD).any():
            raise RuntimeError("a secret of the network")
        while (tokens == WAS).any() and Path(os.environ[HOLD]).exists():
            time.sleep(0.01)
        logits = tokens[:, :1] * 0.1 + self.bias  # (B, C)
        return logits.masked_fill((tokens == VERY).any(dim=1, keepdim=True), torch.nan)
