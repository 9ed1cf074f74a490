"""Sequence to sequence: one recurrent net reads the sentence, another writes its translation.

Sutskever, Vinyals & Le 2014, "Sequence to sequence learning with neural networks"; Cho et al. 2014,
"Learning phrase representations using RNN encoder-decoder", whose GRU is used. A language model
goes on with a text. New here: what is written depends on what was read in another language, and
may be longer or shorter.

Without attention the whole sentence must fit into one vector. With it, the decoder looks at all
words of the source at every step, and weighs them anew:

    bahdanau    e_s = v · tanh(W x_s + U h_{t-1})    before each step, from the state so far; what
                                                     it sees goes into the step (Bahdanau et al.
                                                     2015)
    luong       e_s = h_t · W x_s                    after it: so that all steps can be computed at
                                                     once (Luong et al. 2015, "general", without
                                                     input feeding)

`decode` is the door of a language net, with what was read beside it, as in transformer.py.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets.attention_rnn import AdditiveAttention
from modules.nets.layers.dropout import Dropout
from modules.nets.rnn import RecurrentEncoder, State
from modules.nets.text_rnn import TextEncoder

ATTENTIONS = ("none", "bahdanau", "luong")
Memory = dict[str, Tensor]  # what was read, each with B rows


class Seq2Seq(nn.Module):
    """A GRU that reads in both directions, a GRU that writes, attention between them or not.

    Args:
        source_vocab_size: number of different tokens that are read.
        target_vocab_size: number of different tokens that are written.
        shared_vocabulary: both languages have the same tokens, and so one table of vectors.
        dim: width of a token's vector.
        hidden_size: width of each direction's state, and of that of the decoder.
        num_layers: how many layers read, and how many write.
        dropout: probability of dropping an element of vectors, between layers, before the logits.
        attention: "none", "bahdanau" or "luong".
        tie_embeddings: use the table of target vectors for the logits, too.
    """

    context = None

    def __init__(
        self,
        source_vocab_size: int,
        target_vocab_size: int,
        shared_vocabulary: bool = False,
        dim: int = 256,
        hidden_size: int = 256,
        num_layers: int = 1,
        dropout: float = 0.3,
        attention: str = "none",
        tie_embeddings: bool = True,
    ) -> None:
        super().__init__()
        if attention not in ATTENTIONS:
            raise ValueError(f"attention must be one of {', '.join(ATTENTIONS)}, not {attention!r}")
        if shared_vocabulary and source_vocab_size != target_vocab_size:
            raise ValueError(
                f"shared_vocabulary: {source_vocab_size} and {target_vocab_size} tokens are not "
                "the same ones"
            )
        self.source_vocab_size = source_vocab_size
        self.target_vocab_size = target_vocab_size
        self.shared_vocabulary = shared_vocabulary
        self.dim = dim
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = dropout
        self.attention = attention
        self.tie_embeddings = tie_embeddings
        self.drop = Dropout(dropout)
        self.encoder = TextEncoder(
            source_vocab_size, "gru", dim, hidden_size, num_layers, dropout, bidirectional=True
        )
        read = self.encoder.output_size
        self.bridge = nn.Linear(read, num_layers * hidden_size)
        self.embedding = (
            self.encoder.embedding if shared_vocabulary else nn.Embedding(target_vocab_size, dim)
        )
        fed = dim if attention == "luong" else dim + read
        self.decoder = RecurrentEncoder(fed, hidden_size, "gru", num_layers, dropout)
        if attention == "bahdanau":
            self.additive = AdditiveAttention(read, hidden_size)
            self.query = nn.Linear(hidden_size, hidden_size, bias=False)
        elif attention == "luong":
            self.general = nn.Linear(read, hidden_size, bias=False)
        self.readout = nn.Linear(hidden_size + read, dim)
        self.head = None if tie_embeddings else nn.Linear(dim, target_vocab_size)
        for table in {self.embedding, self.encoder.embedding}:
            nn.init.normal_(table.weight, std=dim**-0.5)  # else the first logits are large

    def encode(self, inputs: dict[str, Tensor]) -> Memory:
        """Read the source: what is known at each word, what of all, and where the decoder begins.

        Returns:
            `read` (B, S, C), `summary` (B, 1, C), `mask` (B, S), `begin` (B, layers, D), and with
            attention `keys`, what each word is found by, (B, S, D).
        """
        tokens, mask = inputs["input_ids"], inputs["attention_mask"].bool()  # (B, S), (B, S)
        read = self.encoder(tokens, mask)  # (B, S, C)
        ends = self.encoder.ends(read, mask)  # (B, C)
        # h_0 = tanh(W [h→_S; h←_1] + b)
        begin = torch.tanh(self.bridge(ends)).unflatten(1, (self.num_layers, -1))  # (B, layers, D)
        memory = {"read": read, "summary": ends.unsqueeze(1), "mask": mask, "begin": begin}
        if self.attention == "bahdanau":
            memory["keys"] = self.additive.hidden(read)  # (B, S, D)
        elif self.attention == "luong":
            memory["keys"] = self.general(read)  # (B, S, D)
        return memory

    def init_state(self, memory: Memory) -> State:
        return (memory["begin"].transpose(0, 1).contiguous(),)  # (layers, B, D)

    @staticmethod
    def reorder_state(state: State, rows: Tensor) -> State:
        """The state of these rows of the batch."""
        return tuple(part.index_select(1, rows) for part in state)

    def decode(
        self, tokens: Tensor, memory: Memory, state: State | None = None
    ) -> tuple[Tensor, State | None]:
        """Tokens (B, T) that were written to logits (B, T, V) of the ones that come next."""
        outputs, seen, _, after = self._write(tokens, memory, state)
        # h~_t = tanh(W [h_t; c_t] + b)
        x = self.drop(torch.tanh(self.readout(torch.cat([outputs, seen], dim=-1))))  # (B, T, dim)
        logits = F.linear(x, self.embedding.weight) if self.head is None else self.head(x)
        return logits, None if state is None else after  # (B, T, V)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """What was read and written to logits (B, T, V)."""
        return self.decode(inputs["decoder_input_ids"], self.encode(inputs))[0]

    def attention_weights(self, inputs: dict[str, Tensor]) -> Tensor | None:
        """How much each word that is written looks at each word of the source, (B, T, S)."""
        return self._write(inputs["decoder_input_ids"], self.encode(inputs), None)[2]

    def _write(
        self, tokens: Tensor, memory: Memory, state: State | None
    ) -> tuple[Tensor, Tensor, Tensor | None, State]:
        """States (B, T, D), what was seen (B, T, C), how it was weighed (B, T, S), the state."""
        state = self.init_state(memory) if state is None else state
        x = self.drop(self.embedding(tokens))  # (B, T, dim)
        if self.attention == "bahdanau":
            return self._step_by_step(x, memory, state)
        if self.attention == "none":  # Cho et al. 2014: the summary is before one's eyes, always
            seen = memory["summary"].expand(-1, x.shape[1], -1)  # (B, T, C)
            outputs, after = self.decoder(torch.cat([x, seen], dim=-1), state)  # (B, T, D)
            return outputs, seen, None, after
        outputs, after = self.decoder(x, state)  # (B, T, D)
        # e_ts = h_t · W x_s        α = softmax(e)        c_t = Σ_s α_ts x_s
        scores = outputs @ memory["keys"].transpose(1, 2)  # (B, T, S)
        scores = scores.float().masked_fill(~memory["mask"].unsqueeze(1), float("-inf"))
        weights = scores.softmax(dim=-1)  # (B, T, S)
        return outputs, weights.to(outputs.dtype) @ memory["read"], weights, after

    def _step_by_step(
        self, x: Tensor, memory: Memory, state: State
    ) -> tuple[Tensor, Tensor, Tensor, State]:
        outputs, seen, weighed = [], [], []
        for x_t in x.split(1, dim=1):  # (B, 1, dim)
            # e_s = v · tanh(W x_s + b + U h_{t-1})        c_t = Σ_s α_s x_s
            hidden = memory["keys"] + self.query(state[0][-1]).unsqueeze(1)  # (B, S, D)
            weights = self.additive.weigh(hidden, memory["mask"]).unsqueeze(1)  # (B, 1, S)
            seen.append(weights.to(memory["read"].dtype) @ memory["read"])  # (B, 1, C)
            output, state = self.decoder(torch.cat([x_t, seen[-1]], dim=-1), state)  # (B, 1, D)
            outputs.append(output)
            weighed.append(weights)
        return *(torch.cat(parts, dim=1) for parts in (outputs, seen, weighed)), state  # type: ignore[return-value]
