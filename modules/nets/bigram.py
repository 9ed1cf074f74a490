"""Bigram: predict the next token from the current one alone, by a table of logits.

Shannon 1948, "A mathematical theory of communication", section 3: there estimated by counting, here
by gradient descent; the optimum, the table of log-frequencies, is the same. This file also defines
the interface of *every* language model.

Interface of language models
----------------------------
`logits, state = net(tokens, state=None)`: tokens int64 (B, T), logits (B, T, V); `logits[:, t]`
predicts token t + 1.

- **Training** passes no state: the tokens start a text, and the returned state is None.
- **Generation** starts from `net.init_state(batch_size)`. The returned state includes the tokens of
  the call and is passed to the next call with one or more further tokens. Processing a text in
  parts gives the same logits as processing it at once. Do not reuse a state that was passed in: a
  GPT updates it in place.
- `net.context` is the number of tokens that a state can hold: None means no limit (bigram, MLP,
  RNN); a GPT raises a ValueError beyond its context, and the caller starts a new state from the
  last part of the text.
- `net.reorder_state(state, rows)` copies the given rows of a state, and `net.join_states(states)`
  makes one batch of several, also of texts of different lengths. Without them, texts of different
  lengths are processed one after another.
- `net.truncate_state(state, length)` removes the last tokens, for speculative decoding; an RNN
  cannot do that.
- The state has no fixed type and carries no gradient: generate under `torch.inference_mode()`.
"""

import torch
from torch import Tensor, nn


class Bigram(nn.Module):
    """A table of logits with one row per token.

    Args:
        vocab_size: Number of tokens in the vocabulary.
    """

    context = None

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.table = nn.Embedding(vocab_size, vocab_size)
        nn.init.zeros_(self.table.weight)  # uniform predictions: the first loss is ln V

    def init_state(self, batch_size: int) -> Tensor:
        return torch.empty(batch_size, 0)  # no state is needed

    @staticmethod
    def reorder_state(state: Tensor, rows: Tensor) -> Tensor:
        return state[rows.cpu()]

    @staticmethod
    def join_states(states: list[Tensor]) -> Tensor:
        return torch.cat(states)

    @staticmethod
    def truncate_state(state: Tensor, length: int) -> Tensor:
        return state

    def forward(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        # logits(token t + 1 | tokens 0..t) = table[token t]
        return self.table(tokens), state  # (B, T, V)
