"""Bigram: the next token from the current one alone, by a table of logits.

Shannon 1948, "A mathematical theory of communication", section 3 (there counted by hand, here
learned by gradient; the optimum is the same: the table of log-frequencies). The lowest rung of the
language ladder: all that it can know is which token tends to follow which. It is also the place
where the door of *every* language net is explained.

The door
--------
`logits, state = net(tokens, state=None)`: tokens int64 (B, T), logits (B, T, V); `logits[:, t]`
judges token t + 1.

- **Training** passes no state. The tokens are then the beginning of a text, no state is built, and
  None comes back.
- **Generation** asks for a state, `net.init_state(batch_size)`: "nothing has been read yet".
  Passing it in means "keep what you need": the state that comes back has read these tokens too, and
  goes into the next call with the next tokens, one or many. Reading in pieces gives the logits of
  reading at once. A state is spent once it has been passed in (a GPT writes into the same memory):
  use the one that came back.
- `net.context` says how many tokens can be read from one fresh state: None is "any number" (bigram,
  MLP, RNN: their state has one size for ever), a GPT holds `context` of them and raises a
  ValueError beyond. A generator then takes a fresh state and reads the last part of the text again.
- What a state is made of is the net's own affair. It is for reading only: wrap generation in
  `torch.inference_mode()`.
"""

import torch
from torch import Tensor, nn


class Bigram(nn.Module):
    """A table of logits with one row a token.

    Args:
        vocab_size: number of different tokens.
    """

    context = None

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.table = nn.Embedding(vocab_size, vocab_size)
        nn.init.zeros_(self.table.weight)  # every token equally likely: the first loss is ln V

    def init_state(self, batch_size: int) -> Tensor:
        return torch.empty(batch_size, 0)  # there is nothing to remember

    def forward(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        # logits(token t + 1 | tokens 0..t) = table[token t]
        return self.table(tokens), state  # (B, T, V)
