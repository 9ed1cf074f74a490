"""Neural probabilistic language model: an MLP over the vectors of the last few tokens.

Bengio et al. 2003, "A neural probabilistic language model". A table over the last n tokens would
need V^n rows, and learn nothing about one row from another. New here: each token gets a learned
vector, the vectors of the window go side by side through one hidden layer, and so what is learned
about one text carries over to similar ones.
"""

import torch
from torch import Tensor, nn


class MLPLM(nn.Module):
    """y = b + W x + U tanh(d + H x), x being the vectors of the last `window` tokens, side by side.

    Args:
        vocab_size: number of different tokens.
        window: how many tokens, the current one included, the next one is guessed from.
        dim: width of a token's vector.
        hidden_size: width of the hidden layer.
        direct: also connect the vectors to the logits directly (the W of the paper).
    """

    context = None

    def __init__(
        self,
        vocab_size: int,
        window: int = 8,
        dim: int = 32,
        hidden_size: int = 256,
        direct: bool = False,
    ) -> None:
        super().__init__()
        if window < 1:
            raise ValueError(f"window must be at least 1 token, not {window}")
        self.vocab_size = vocab_size
        self.window = window
        self.dim = dim
        self.hidden_size = hidden_size
        self.direct = direct
        self.embedding = nn.Embedding(vocab_size, dim)
        self.hidden = nn.Linear(window * dim, hidden_size)
        self.output = nn.Linear(hidden_size, vocab_size)
        self.shortcut = nn.Linear(window * dim, vocab_size, bias=False) if direct else None
        # Small logits at the beginning: every token about equally likely, the first loss near ln V.
        nn.init.normal_(self.output.weight, std=0.1 * hidden_size**-0.5)
        nn.init.zeros_(self.output.bias)
        if self.shortcut is not None:
            nn.init.normal_(self.shortcut.weight, std=0.1 * (window * dim) ** -0.5)

    @property
    def head(self) -> nn.ModuleList:
        """What makes the logits."""
        return nn.ModuleList(m for m in (self.output, self.shortcut) if m is not None)

    def init_state(self, batch_size: int) -> Tensor:
        """The vectors of the window - 1 tokens before the text: zeros."""
        return self.embedding.weight.new_zeros(batch_size, self.window - 1, self.dim)

    def forward(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        before = self.init_state(len(tokens)) if state is None else state  # (B, window - 1, D)
        vectors = torch.cat([before, self.embedding(tokens)], dim=1)  # (B, window - 1 + T, D)
        # x_t = [C(w_{t-n+1}), …, C(w_t)]: the window slides over all positions at once
        x = vectors.unfold(1, self.window, 1).transpose(2, 3).flatten(2)  # (B, T, window · D)
        # y = b + W x + U tanh(d + H x)
        logits = self.output(torch.tanh(self.hidden(x)))  # (B, T, V)
        if self.shortcut is not None:
            logits = logits + self.shortcut(x)  # (B, T, V)
        return logits, None if state is None else vectors[:, tokens.shape[1] :]
