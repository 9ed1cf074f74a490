"""Solutions of day 28."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CharacterTokenizer:
    def __init__(self, text: str) -> None:
        self.characters = sorted(set(text))
        self.ids = {character: index for index, character in enumerate(self.characters)}

    def encode(self, text: str) -> list[int]:
        for character in text:
            if character not in self.ids:
                raise ValueError(f"{character!r} is not in the training text")
        return [self.ids[character] for character in text]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.characters[index] for index in ids)


@torch.no_grad()
def validation_loss(net: nn.Module, tokens: Tensor, context: int) -> float:
    training = net.training
    net.eval()
    total = 0.0
    for inputs, targets in zip(tokens[:-1].split(context), tokens[1:].split(context), strict=True):
        logits = net(inputs[None])[0]
        total += F.cross_entropy(logits, targets, reduction="sum").item()
    net.train(training)
    return total / (len(tokens) - 1)


def early_stopping(losses: list[float], patience: int, min_delta: float = 0.0) -> tuple[int, int]:
    best_epoch = 0
    for epoch, loss in enumerate(losses):
        if loss < losses[best_epoch] - min_delta:
            best_epoch = epoch
        if epoch - best_epoch >= patience:
            return epoch, best_epoch
    return len(losses) - 1, best_epoch
