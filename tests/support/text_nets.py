"""Every text classifier, for the contract tests; a new network is included automatically."""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

import modules.nets
from modules.nets import (
    AttentionRNN,
    BagOfWords,
    BertClassifier,
    PretrainedClassifier,
    PretrainedTokenClassifier,
    TextCNN,
    TextRNN,
    TransformerClassifier,
)

NUM_CLASSES, VOCAB_SIZE, CONTEXT = 5, 30, 16
TINY_DISTILBERT = {
    "model_type": "distilbert",
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": CONTEXT,
    "dim": 16,
    "hidden_dim": 32,
    "n_layers": 1,
    "n_heads": 2,
}
TEXT_NET_CLASSES = [
    net
    for net in (getattr(modules.nets, name) for name in modules.nets.__all__)
    if {"num_classes", "vocab_size"} <= set(inspect.signature(net).parameters)
    and net is not PretrainedTokenClassifier  # its logits are those of tokens
]


def _with(net: type[nn.Module], **arguments: object) -> Callable[[], nn.Module]:
    return lambda: net(num_classes=NUM_CLASSES, vocab_size=VOCAB_SIZE, **arguments)


TEXT_NETS: dict[str, Callable[[], nn.Module]] = {
    "BagOfWords": _with(BagOfWords, dim=16),
    "BagOfWords-pairs": _with(BagOfWords, dim=16, bigram_buckets=50, dropout=0.1),
    "TextCNN": _with(TextCNN, dim=12, filters=8, dropout=0.1, embedding_dropout=0.1),
    "TextCNN-wide": _with(TextCNN, dim=8, widths=[1, 7], filters=8, dropout=0.0),
    "TextRNN-lstm": _with(TextRNN, dim=12, hidden_size=10, dropout=0.1),
    "TextRNN-gru-max": _with(
        TextRNN, cell="gru", dim=12, hidden_size=10, num_layers=2, dropout=0.0, pooling="max"
    ),
    "TextRNN-forward-mean": _with(
        TextRNN, dim=12, hidden_size=10, bidirectional=False, dropout=0.0, pooling="mean"
    ),
    "AttentionRNN": _with(AttentionRNN, dim=12, hidden_size=10, attention_size=8, dropout=0.1),
    "AttentionRNN-gru": _with(
        AttentionRNN, cell="gru", dim=8, hidden_size=8, num_layers=2, dropout=0.1
    ),
    "Transformer-sinusoidal": _with(
        TransformerClassifier, context=CONTEXT, dim=16, num_heads=2, num_layers=2
    ),
    "Transformer-learned": _with(
        TransformerClassifier,
        context=CONTEXT,
        dim=16,
        num_heads=4,
        num_layers=1,
        positions="learned",
    ),
    "Bert": _with(BertClassifier, context=CONTEXT, dim=16, num_heads=2, num_layers=1),
    "Pretrained-distilbert": _with(PretrainedClassifier, config=TINY_DISTILBERT),
}
IGNORES_ORDER = {"BagOfWords"}


def batch_of(lengths: list[int], width: int | None = None, seed: int = 2) -> dict[str, Tensor]:
    """Return random texts of the given lengths, padded with zeros to `width`."""
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.zeros(len(lengths), width or max(lengths), dtype=torch.int64)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for row, length in enumerate(lengths):
        tokens[row, :length] = torch.randint(2, VOCAB_SIZE, (length,), generator=draw)
        mask[row, :length] = True
    return {"input_ids": tokens, "attention_mask": mask}
