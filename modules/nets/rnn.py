"""RNN, LSTM and GRU language models, which process a text token by token.

Elman 1990, "Finding structure in time"; Hochreiter & Schmidhuber 1997, "Long short-term memory"
(with the forget gate of Gers et al. 2000); Cho et al. 2014, "Learning phrase representations using
RNN encoder-decoder". The MLP has a window of fixed width and separate weights for each position in
it. New here: all steps share their weights, and a state carries information over any distance. The
gradient of the plain RNN vanishes over long distances; the gates of LSTM and GRU can pass the state
on unchanged, and with it the gradient.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets.layers.dropout import Dropout
from modules.nets.layers.recurrent import LSTM

State = tuple[Tensor, ...]  # (h,) or, for an LSTM, (h, c): each (layers, B, D)


def rnn_cell(x: Tensor, state: State, w: Tensor, u: Tensor, b: Tensor, c: Tensor) -> State:
    (h,) = state  # (B, D)
    # h' = tanh(W x + b + U h + c)
    return (torch.tanh(F.linear(x, w, b) + F.linear(h, u, c)),)  # (B, D)


def lstm_cell(x: Tensor, state: State, w: Tensor, u: Tensor, b: Tensor, c: Tensor) -> State:
    h, cell = state  # (B, D), (B, D)
    # i, f, o = σ(W x + b + U h + c)   input, forget and output gate, g = tanh(…) the new content
    i, f, g, o = (F.linear(x, w, b) + F.linear(h, u, c)).chunk(4, dim=-1)  # four of (B, D)
    # cell' = f ⊙ cell + i ⊙ g
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)  # (B, D)
    # h' = o ⊙ tanh(cell')
    return torch.sigmoid(o) * torch.tanh(cell), cell  # (B, D), (B, D)


def gru_cell(x: Tensor, state: State, w: Tensor, u: Tensor, b: Tensor, c: Tensor) -> State:
    (h,) = state  # (B, D)
    x_r, x_z, x_n = F.linear(x, w, b).chunk(3, dim=-1)  # three of (B, D)
    h_r, h_z, h_n = F.linear(h, u, c).chunk(3, dim=-1)  # three of (B, D)
    # r, z = σ(W x + b + U h + c)   reset and update gate
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)  # (B, D), (B, D)
    # n = tanh(W x + b + r ⊙ (U h + c))
    n = torch.tanh(x_n + r * h_n)  # (B, D)
    # h' = (1 - z) ⊙ n + z ⊙ h
    return ((1 - z) * n + z * h,)  # (B, D)


CELLS = {"rnn": rnn_cell, "lstm": lstm_cell, "gru": gru_cell}
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
FUSED: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": LSTM, "gru": nn.GRU}


class RecurrentEncoder(nn.Module):
    """A stack of recurrent layers: (inputs, state) → (outputs, state).

    The parameters are those of PyTorch's layers. `fused` runs these layers; otherwise the equations
    above run step by step on the same parameters.

    Args:
        input_size: Width of the inputs.
        hidden_size: Width of the state and of the outputs.
        cell: "rnn", "lstm" or "gru".
        num_layers: Number of layers.
        dropout: Dropout probability between two layers.
        fused: Run PyTorch's fused kernels (fast) instead of the equations.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        cell: str = "lstm",
        num_layers: int = 1,
        dropout: float = 0.0,
        fused: bool = True,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell must be one of {', '.join(CELLS)}, got {cell!r}")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.cell = cell
        self.num_layers = num_layers
        self.fused = fused
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(
            FUSED[cell](input_size if layer == 0 else hidden_size, hidden_size, batch_first=True)
            for layer in range(num_layers)
        )
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        for layer in self.layers:
            w, u, b, c = layer.parameters()
            for w_gate, u_gate in zip(
                w.chunk(GATES[self.cell]), u.chunk(GATES[self.cell]), strict=True
            ):
                nn.init.xavier_uniform_(w_gate)
                nn.init.orthogonal_(u_gate)  # keeps the norm of the state (Saxe et al. 2014)
            nn.init.zeros_(b)
            nn.init.zeros_(c)
            if self.cell == "lstm":  # forget gate open at first (Jozefowicz et al. 2015)
                nn.init.ones_(b.chunk(4)[1])

    def init_state(self, batch_size: int) -> State:
        zeros = next(self.parameters()).new_zeros(self.num_layers, batch_size, self.hidden_size)
        return (zeros, zeros) if self.cell == "lstm" else (zeros,)

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return outputs (B, T, hidden_size) for inputs (B, T, input_size), and the last state."""
        if state is None:
            state = self.init_state(len(inputs))
        run = self._run_fused if self.fused else self._run_equations
        x, after = inputs, []
        for number, layer in enumerate(self.layers):
            if number > 0:
                x = self.dropout(x)
            x, layer_state = run(layer, x, tuple(part[number] for part in state))  # (B, T, D)
            after.append(layer_state)
        return x, tuple(torch.stack(part) for part in zip(*after, strict=True))

    def _run_fused(self, layer: nn.Module, x: Tensor, state: State) -> tuple[Tensor, State]:
        h = tuple(part.unsqueeze(0) for part in state)  # each (1, B, D)
        outputs, after = layer(x, h if self.cell == "lstm" else h[0])  # (B, T, D)
        # Contiguous: without native bfloat16, compiled code after strided outputs gives NaN.
        return outputs.contiguous(), tuple(
            part.squeeze(0) for part in (after if self.cell == "lstm" else (after,))
        )

    def _run_equations(self, layer: nn.Module, x: Tensor, state: State) -> tuple[Tensor, State]:
        w, u, b, c = layer.parameters()  # (G·D, input), (G·D, D), (G·D), (G·D) for G gates
        outputs = []
        for x_t in x.unbind(dim=1):  # (B, input)
            state = CELLS[self.cell](x_t, state, w, u, b, c)
            outputs.append(state[0])
        return torch.stack(outputs, dim=1), state  # (B, T, D)


class RNNLM(nn.Module):
    """Token embeddings, a recurrent encoder, and logits from its outputs.

    Args:
        vocab_size: Number of tokens in the vocabulary.
        cell: "rnn", "lstm" or "gru".
        dim: Width of the token embeddings and of the state.
        num_layers: Number of recurrent layers.
        dropout: Dropout probability before, between and after the layers.
        tie_embeddings: Use the token embedding as the output layer, too (Press & Wolf 2017).
        fused: Run PyTorch's fused kernels (fast) instead of the equations.
    """

    context = None

    def __init__(
        self,
        vocab_size: int,
        cell: str = "lstm",
        dim: int = 256,
        num_layers: int = 2,
        dropout: float = 0.0,
        tie_embeddings: bool = False,
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.cell = cell
        self.dim = dim
        self.num_layers = num_layers
        self.dropout = dropout
        self.tie_embeddings = tie_embeddings
        self.fused = fused
        self.embedding = nn.Embedding(vocab_size, dim)
        self.drop = Dropout(dropout)
        self.encoder = RecurrentEncoder(dim, dim, cell, num_layers, dropout, fused)
        self.head = None if tie_embeddings else nn.Linear(dim, vocab_size)
        if self.head is None:
            nn.init.normal_(self.embedding.weight, std=dim**-0.5)  # keeps the first logits small
        else:
            nn.init.normal_(self.head.weight, std=0.1 * dim**-0.5)
            nn.init.zeros_(self.head.bias)

    def init_state(self, batch_size: int) -> State:
        return self.encoder.init_state(batch_size)

    @staticmethod
    def reorder_state(state: State, rows: Tensor) -> State:
        return tuple(part.index_select(1, rows) for part in state)

    @staticmethod
    def join_states(states: list[State]) -> State:
        return tuple(torch.cat(parts, dim=1) for parts in zip(*states, strict=True))

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State | None]:
        x = self.drop(self.embedding(tokens))  # (B, T, D)
        x, after = self.encoder(x, state)  # (B, T, D)
        x = self.drop(x)
        logits = F.linear(x, self.embedding.weight) if self.head is None else self.head(x)
        return logits, None if state is None else after  # (B, T, V)
