"""The feed-forward layer of a Transformer block, with ReLU, GELU or SwiGLU."""

from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets.layers.dropout import Dropout


class FeedForward(nn.Module):
    """Position-wise feed-forward layer of width `hidden_size`, 4 D by default (8/3 D if gated)."""

    def __init__(
        self,
        dim: int,
        activation: str,
        dropout: float,
        bias: bool = True,
        hidden_size: int | None = None,
    ) -> None:
        super().__init__()
        self.activation = activation
        gated = activation == "swiglu"
        # The gate is a third matrix; 2/3 of the width, rounded up to a multiple of 8, keeps the
        # number of parameters.
        hidden_size = hidden_size or (-(-8 * dim // 3 // 8) * 8 if gated else 4 * dim)
        self.up = nn.Linear(dim, 2 * hidden_size if gated else hidden_size, bias=bias)
        self.proj = nn.Linear(hidden_size, dim, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.up(x)  # (B, T, F) or, gated, (B, T, 2 F)
        if self.activation == "swiglu":
            # SwiGLU(x) = (W x) ⊙ silu(V x)
            content, gate = hidden.chunk(2, dim=-1)  # (B, T, F), (B, T, F)
            hidden = content * F.silu(gate)  # (B, T, F)
        elif self.activation == "relu":
            # relu(x) = max(x, 0)
            hidden = F.relu(hidden)  # (B, T, F)
        else:
            # gelu(x) = x/2 · (1 + erf(x / sqrt(2)))   (Hendrycks & Gimpel 2016)
            # gelu_tanh(x) = x/2 · (1 + tanh(sqrt(2/π) (x + 0.044715 x³))), used by GPT-2
            approximate = "tanh" if self.activation == "gelu_tanh" else "none"
            hidden = F.gelu(hidden, approximate=approximate)  # (B, T, F)
        return self.dropout(self.proj(hidden))  # (B, T, D)
