"""Neural probabilistic language model: an MLP over the embeddings of the last few tokens.

Bengio et al. 2003, "A neural probabilistic language model". A table over the last n tokens would
need V^n rows and could not generalize between them. New here: each token has a learned embedding,
and a hidden layer reads the concatenated embeddings of a window, so that similar texts share what
is learned.
"""

import torch
from torch import Tensor, nn


class MLPLM(nn.Module):
    """y = b + W x + U tanh(d + H x), where x concatenates the embeddings of the last tokens.

    Args:
        vocab_size: Number of tokens in the vocabulary.
        window: Number of tokens, including the current one, that predict the next one.
        dim: Width of the token embeddings.
        hidden_size: Width of the hidden layer.
        direct: Also connect the embeddings directly to the logits (the W of the paper).
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
            raise ValueError(f"window must be at least 1 token, got {window}")
        self.vocab_size = vocab_size
        self.window = window
        self.dim = dim
        self.hidden_size = hidden_size
        self.direct = direct
        self.embedding = nn.Embedding(vocab_size, dim)
        self.hidden = nn.Linear(window * dim, hidden_size)
        self.output = nn.Linear(hidden_size, vocab_size)
        self.shortcut = nn.Linear(window * dim, vocab_size, bias=False) if direct else None
        # Small initial logits, so that the first loss is close to ln V.
        nn.init.normal_(self.output.weight, std=0.1 * hidden_size**-0.5)
        nn.init.zeros_(self.output.bias)
        if self.shortcut is not None:
            nn.init.normal_(self.shortcut.weight, std=0.1 * (window * dim) ** -0.5)

    @property
    def head(self) -> nn.ModuleList:
        """The output layers."""
        return nn.ModuleList(m for m in (self.output, self.shortcut) if m is not None)

    def init_state(self, batch_size: int) -> Tensor:
        """Return zeros in place of the window - 1 embeddings before the text."""
        return self.embedding.weight.new_zeros(batch_size, self.window - 1, self.dim)

    @staticmethod
    def reorder_state(state: Tensor, rows: Tensor) -> Tensor:
        return state.index_select(0, rows)

    @staticmethod
    def join_states(states: list[Tensor]) -> Tensor:
        return torch.cat(states)

    def forward(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        before = self.init_state(tokens.shape[0]) if state is None else state  # (B, window - 1, D)
        vectors = torch.cat([before, self.embedding(tokens)], dim=1)  # (B, window - 1 + T, D)
        # x_t = [C(w_{t-n+1}), …, C(w_t)]: the window slides over all positions at once
        x = vectors.unfold(1, self.window, 1).transpose(2, 3).flatten(2)  # (B, T, window · D)
        # y = b + W x + U tanh(d + H x)
        logits = self.output(torch.tanh(self.hidden(x)))  # (B, T, V)
        if self.shortcut is not None:
            logits = logits + self.shortcut(x)  # (B, T, V)
        return logits, None if state is None else vectors[:, tokens.shape[1] :]
