"""Transformer encoder: every word looks at every other one, all at once, and the text is judged.

Vaswani et al. 2017, "Attention is all you need", the encoder alone. A recurrent net hands on
what it read word by word, one step after the other. New here: no state is carried; words that are
far from each other are one step apart, and all of them are read at the same time. Where a word
stands, the net must be told: by sines of many wavelengths, or by a learned vector for each place.

The blocks are GPT's, with the norm before each part, except that a word may look ahead, too.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets.gpt import (
    Block,
    CausalSelfAttention,
    FeedForward,
    eager_attention,
    make_norm,
)
from modules.nets.layers.dropout import Dropout
from modules.nets.layers.pooling import masked_mean

POSITIONS = ("sinusoidal", "learned")


def sinusoidal_positions(length: int, dim: int, device: torch.device) -> Tensor:
    """What is added to the vectors of places 0 … length - 1, (T, D); section 3.5 of the paper."""
    # P(t, 2i) = sin(t / 10000^(2i / D))        P(t, 2i + 1) = cos(t / 10000^(2i / D))
    pairs = torch.arange(0, dim, 2, dtype=torch.float32, device=device)  # (D/2,)
    rates = 10000.0 ** (-pairs / dim)  # (D/2,)
    angles = torch.arange(length, device=device)[:, None] * rates  # (T, D/2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)  # (T, D)


def padding_mask(mask: Tensor) -> Tensor:
    """What is added to the scores: 0 where there is text, -inf on padding, (B, 1, 1, S)."""
    blocked = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, float("-inf"))
    return blocked[:, None, None, :]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: Dropout) -> Tensor:
    """What queries (B, H, T, K) get of values (B, H, S, K), by the faster way for the device."""
    if q.device.type == "cpu" and (q.dtype == torch.bfloat16 or dropout.active):
        return eager_attention(q, k, v, mask, dropout)  # (B, H, T, K)
    mask = None if mask is None else mask.to(q.dtype)  # broadcasts to (B, H, T, S)
    return F.scaled_dot_product_attention(
        q, k, v, mask, dropout_p=dropout.p if dropout.active else 0.0
    )  # (B, H, T, K)


class SelfAttention(CausalSelfAttention):
    """GPT's attention without its blinkers: what may be seen is said by the mask alone."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return attend(q, k, v, mask, self.weights_dropout)  # (B, H, T, K)


class TransformerClassifier(nn.Module):
    """Token vectors and places, a stack of blocks, the mean over the words, one linear layer.

    Args:
        num_classes: number of classes.
        vocab_size: number of different tokens.
        context: the longest text, in tokens, that the net can read.
        dim: width of the stream, an even number.
        num_heads: attention heads a block; divides dim.
        num_layers: how many blocks.
        dropout: probability of dropping an element of vectors, attention weights, block outputs.
        positions: "sinusoidal" or "learned".
    """

    def __init__(
        self,
        num_classes: int,
        vocab_size: int,
        context: int = 256,
        dim: int = 128,
        num_heads: int = 4,
        num_layers: int = 2,
        dropout: float = 0.1,
        positions: str = "sinusoidal",
    ) -> None:
        super().__init__()
        if positions not in POSITIONS:
            raise ValueError(f"positions must be one of {', '.join(POSITIONS)}, not {positions!r}")
        if dim % num_heads or dim % 2:
            raise ValueError(f"dim ({dim}) must be even and a multiple of num_heads ({num_heads})")
        self.num_classes = num_classes
        self.vocab_size = vocab_size
        self.context = context
        self.dim = dim
        self.num_heads = num_heads
        self.num_layers = num_layers
        self.dropout = dropout
        self.positions = positions
        self.token_embedding = nn.Embedding(vocab_size, dim)
        self.position_embedding = nn.Embedding(context, dim) if positions == "learned" else None
        self.drop = Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                SelfAttention(dim, num_heads, num_heads, dropout, bias=True, attention="auto"),
                FeedForward(dim, "gelu", dropout, bias=True),
                [make_norm("layer", dim, bias=True), make_norm("layer", dim, bias=True)],
            )
            for _ in range(num_layers)
        )
        self.last_norm = make_norm("layer", dim, bias=True)
        self.head = nn.Linear(dim, num_classes)
        self.init_weights()

    def init_weights(self) -> None:
        """N(0, 1/D) for vectors, which are scaled by √D; else as GPT-2, in the blocks."""
        for name, parameter in self.named_parameters():
            if "embedding" in name:
                nn.init.normal_(parameter, std=self.dim**-0.5)
            elif name.endswith("proj.weight"):
                nn.init.normal_(parameter, std=self.dim**-0.5 * (2 * self.num_layers) ** -0.5)
            elif name.endswith("weight") and "norm" not in name:
                nn.init.normal_(parameter, std=self.dim**-0.5)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        nn.init.normal_(self.head.weight, std=0.1 * self.dim**-0.5)  # the first loss is near ln K

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens, mask = inputs["input_ids"], inputs["attention_mask"].bool()  # (B, T), (B, T)
        T = tokens.shape[1]
        if self.context < T:
            raise ValueError(f"this net reads {self.context} tokens, and {T} were given")
        x = self.token_embedding(tokens) * math.sqrt(self.dim)  # (B, T, D)
        if self.position_embedding is not None:
            x = x + self.position_embedding.weight[:T] * math.sqrt(self.dim)  # (B, T, D)
        else:
            x = x + sinusoidal_positions(T, self.dim, x.device).to(x.dtype)  # (B, T, D)
        x = self.drop(x)
        blocked = padding_mask(mask)  # (B, 1, 1, T)
        for block in self.blocks:
            x = block(x, blocked, None, None)  # (B, T, D)
        return self.head(masked_mean(self.last_norm(x), mask))  # (B, num_classes)
