"""Small networks of each translation architecture, and batches for them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from modules.nets import Seq2Seq, Transformer

SOURCES, TARGETS, CONTEXT = 30, 20, 16


NETS: dict[str, Callable[[], nn.Module]] = {
    **{
        f"Seq2Seq-{attention}": lambda attention=attention: Seq2Seq(
            SOURCES, TARGETS, dim=12, hidden_size=10, num_layers=2, attention=attention
        )
        for attention in ("none", "bahdanau", "luong")
    },
    "Seq2Seq-shared": lambda: Seq2Seq(
        TARGETS, TARGETS, True, dim=12, hidden_size=10, attention="luong", tie_embeddings=False
    ),
    "Transformer-post": lambda: Transformer(
        SOURCES, TARGETS, context=CONTEXT, dim=16, num_heads=2, num_layers=2
    ),
    "Transformer-pre": lambda: Transformer(
        SOURCES, TARGETS, context=CONTEXT, dim=16, num_heads=4, num_layers=2, norm="pre"
    ),
    "Transformer-shared": lambda: Transformer(
        TARGETS, TARGETS, True, CONTEXT, dim=16, num_heads=2, num_layers=1, tie_embeddings=False
    ),
}


LENGTHS, TARGET_LENGTH = [3, 7, 1, 5], 6


def batch_of(
    lengths: list[int] = LENGTHS,
    target_length: int = TARGET_LENGTH,
    width: int | None = None,
    seed: int = 2,
) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.zeros(len(lengths), width or max(lengths), dtype=torch.int64)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for row, length in enumerate(lengths):
        tokens[row, :length] = torch.randint(4, TARGETS, (length,), generator=draw)
        mask[row, :length] = True
    targets = torch.randint(4, TARGETS, (len(lengths), target_length), generator=draw)
    return {"input_ids": tokens, "attention_mask": mask, "decoder_input_ids": targets}
