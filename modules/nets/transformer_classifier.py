"""Transformer encoder for text classification: self-attention, then the mean over all tokens.

Vaswani et al. 2017, "Attention is all you need", the encoder alone. A recurrent network passes
information along token by token. New here: there is no recurrence; self-attention connects any two
tokens directly, and all positions are computed in parallel. Since attention ignores the order of
its inputs, positions are added as sinusoids of many wavelengths or as learned embeddings.

The blocks are GPT's pre-norm blocks without the causal mask.
"""

import math

import torch
from torch import Tensor, nn

from modules.nets.gpt import Block, SelfAttention, make_norm
from modules.nets.layers.attention import padding_mask
from modules.nets.layers.dropout import Dropout
from modules.nets.layers.feed_forward import FeedForward
from modules.nets.layers.pooling import masked_mean

POSITIONS = ("sinusoidal", "learned")


def sinusoidal_positions(length: int, dim: int, device: torch.device) -> Tensor:
    """Return the encodings of positions 0 … length - 1, (T, D); section 3.5 of the paper."""
    # P(t, 2i) = sin(t / 10000^(2i / D))        P(t, 2i + 1) = cos(t / 10000^(2i / D))
    pairs = torch.arange(0, dim, 2, dtype=torch.float32, device=device)  # (D/2,)
    frequencies = 10000.0 ** (-pairs / dim)  # (D/2,)
    angles = torch.arange(length, device=device)[:, None] * frequencies  # (T, D/2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)  # (T, D)


class TransformerClassifier(nn.Module):
    """Token embeddings plus positions, a stack of blocks, mean pooling, one linear layer.

    Args:
        num_classes: Number of logits.
        vocab_size: Number of tokens in the vocabulary.
        context: Maximum sequence length in tokens.
        dim: Width of the residual stream, an even number.
        num_heads: Number of attention heads; must divide dim.
        num_layers: Number of blocks.
        dropout: Dropout probability of embeddings, attention weights and block outputs.
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
            raise ValueError(f"positions must be one of {', '.join(POSITIONS)}, got {positions!r}")
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
                SelfAttention(dim, num_heads, num_heads, dropout),
                FeedForward(dim, "gelu", dropout),
                [make_norm("layer", dim, bias=True), make_norm("layer", dim, bias=True)],
            )
            for _ in range(num_layers)
        )
        self.last_norm = make_norm("layer", dim, bias=True)
        self.head = nn.Linear(dim, num_classes)
        self.init_weights()

    def init_weights(self) -> None:
        """N(0, 1/D) for embeddings, which are scaled by √D; the blocks as in GPT-2."""
        for name, parameter in self.named_parameters():
            if "embedding" in name:
                nn.init.normal_(parameter, std=self.dim**-0.5)
            elif name.endswith("proj.weight"):
                nn.init.normal_(parameter, std=self.dim**-0.5 * (2 * self.num_layers) ** -0.5)
            elif name.endswith("weight") and "norm" not in name:
                nn.init.normal_(parameter, std=self.dim**-0.5)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        # Small initial logits, so that the first loss is close to ln(num_classes).
        nn.init.normal_(self.head.weight, std=0.1 * self.dim**-0.5)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens, mask = inputs["input_ids"], inputs["attention_mask"].bool()  # (B, T), (B, T)
        T = tokens.shape[1]
        if self.context < T:
            raise ValueError(f"the context of this network is {self.context} tokens, got {T}")
        x = self.token_embedding(tokens) * math.sqrt(self.dim)  # (B, T, D)
        if self.position_embedding is not None:
            x = x + self.position_embedding.weight[:T] * math.sqrt(self.dim)  # (B, T, D)
        else:
            x = x + sinusoidal_positions(T, self.dim, x.device).to(x.dtype)  # (B, T, D)
        x = self.drop(x)
        blocked = padding_mask(mask)  # (B, 1, 1, T)
        for block in self.blocks:
            x = block(x, blocked)  # (B, T, D)
        return self.head(masked_mean(self.last_norm(x), mask))  # (B, num_classes)
