"""Seq2Seq: a recurrent encoder–decoder for translation, with or without attention.

Sutskever, Vinyals & Le 2014, "Sequence to sequence learning with neural networks"; Cho et al. 2014,
"Learning phrase representations using RNN encoder-decoder", whose GRU is used. A language model
continues a text. New here: the output is conditioned on a source sentence in another language and
may have another length.

Without attention one vector represents the whole source. With attention, the decoder computes a new
weighted mean of the source states at every step:

    bahdanau    e_s = v · tanh(W x_s + U h_{t-1})    before the step, from the previous state; the
                                                     context is an input of the step (Bahdanau et
                                                     al. 2015)
    luong       e_s = h_t · W x_s                    after the step, so that all steps can be
                                                     computed at once (Luong et al. 2015,
                                                     "general", without input feeding)

`decode` follows the interface of language models (see bigram.py) with the encoder's memory as an
extra argument, as in transformer.py.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets.attention_rnn import AdditiveAttention
from modules.nets.layers.dropout import Dropout
from modules.nets.rnn import RecurrentEncoder, State
from modules.nets.text_rnn import TextEncoder

ATTENTIONS = ("none", "bahdanau", "luong")
Memory = dict[str, Tensor]  # the encoded source, each tensor with B rows


class Seq2Seq(nn.Module):
    """A bidirectional GRU encoder and a GRU decoder, optionally with attention.

    Args:
        source_vocab_size: Number of tokens in the source vocabulary.
        target_vocab_size: Number of tokens in the target vocabulary.
        shared_vocabulary: Both languages have the same vocabulary and share one embedding.
        dim: Width of the token embeddings.
        hidden_size: Width of the state of each encoder direction, and of the decoder.
        num_layers: Number of encoder layers, and of decoder layers.
        dropout: Dropout probability of embeddings, between layers and before the logits.
        attention: "none", "bahdanau" or "luong".
        tie_embeddings: Use the target embedding as the output layer, too.
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
            raise ValueError(f"attention must be one of {', '.join(ATTENTIONS)}, got {attention!r}")
        if shared_vocabulary and source_vocab_size != target_vocab_size:
            raise ValueError(
                f"shared_vocabulary needs vocabularies of equal size, got {source_vocab_size} and "
                f"{target_vocab_size} tokens"
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
        source_size = self.encoder.output_size
        self.bridge = nn.Linear(source_size, num_layers * hidden_size)
        self.embedding = (
            self.encoder.embedding if shared_vocabulary else nn.Embedding(target_vocab_size, dim)
        )
        input_size = dim if attention == "luong" else dim + source_size
        self.decoder = RecurrentEncoder(input_size, hidden_size, "gru", num_layers, dropout)
        if attention == "bahdanau":
            self.additive = AdditiveAttention(source_size, hidden_size)
            self.query = nn.Linear(hidden_size, hidden_size, bias=False)
        elif attention == "luong":
            self.general = nn.Linear(source_size, hidden_size, bias=False)
        self.readout = nn.Linear(hidden_size + source_size, dim)
        self.head = None if tie_embeddings else nn.Linear(dim, target_vocab_size)
        for embedding in {self.embedding, self.encoder.embedding}:
            nn.init.normal_(embedding.weight, std=dim**-0.5)  # keeps the first logits small

    def encode(self, inputs: dict[str, Tensor]) -> Memory:
        """Encode the source.

        Returns:
            `source` (B, S, C), `summary` (B, 1, C), `mask` (B, S), the decoder's first state
            `initial` (B, layers, D), and with attention `keys` (B, S, D).
        """
        tokens, mask = inputs["input_ids"], inputs["attention_mask"].bool()  # (B, S), (B, S)
        source = self.encoder(tokens, mask)  # (B, S, C)
        ends = self.encoder.ends(source, mask)  # (B, C)
        # h_0 = tanh(W [h→_S; h←_1] + b)
        initial = torch.tanh(self.bridge(ends)).unflatten(1, (self.num_layers, -1))
        memory = {"source": source, "summary": ends.unsqueeze(1), "mask": mask, "initial": initial}
        if self.attention == "bahdanau":
            memory["keys"] = self.additive.hidden(source)  # (B, S, D)
        elif self.attention == "luong":
            memory["keys"] = self.general(source)  # (B, S, D)
        return memory

    def init_state(self, memory: Memory) -> State:
        return (memory["initial"].transpose(0, 1).contiguous(),)  # (layers, B, D)

    @staticmethod
    def reorder_state(state: State, rows: Tensor) -> State:
        """Return the state of the given batch rows, for beam search."""
        return tuple(part.index_select(1, rows) for part in state)

    def decode(
        self, tokens: Tensor, memory: Memory, state: State | None = None
    ) -> tuple[Tensor, State | None]:
        """Return the logits (B, T, V) of the tokens that follow each target token (B, T)."""
        outputs, context, _, after = self._run_decoder(tokens, memory, state)
        # h~_t = tanh(W [h_t; c_t] + b)
        x = self.drop(torch.tanh(self.readout(torch.cat([outputs, context], dim=-1))))
        logits = F.linear(x, self.embedding.weight) if self.head is None else self.head(x)
        return logits, None if state is None else after  # (B, T, V)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the logits (B, T, V) for source and shifted target."""
        return self.decode(inputs["decoder_input_ids"], self.encode(inputs))[0]

    def attention_weights(self, inputs: dict[str, Tensor]) -> Tensor | None:
        """Return the attention weights from target to source tokens, (B, T, S)."""
        return self._run_decoder(inputs["decoder_input_ids"], self.encode(inputs), None)[2]

    def _run_decoder(
        self, tokens: Tensor, memory: Memory, state: State | None
    ) -> tuple[Tensor, Tensor, Tensor | None, State]:
        """Return states (B, T, D), contexts (B, T, C), attention weights (B, T, S), last state."""
        state = self.init_state(memory) if state is None else state
        x = self.drop(self.embedding(tokens))  # (B, T, dim)
        if self.attention == "bahdanau":
            return self._step_by_step(x, memory, state)
        if self.attention == "none":  # Cho et al. 2014: the summary is an input of every step
            context = memory["summary"].expand(-1, x.shape[1], -1)  # (B, T, C)
            outputs, after = self.decoder(torch.cat([x, context], dim=-1), state)  # (B, T, D)
            return outputs, context, None, after
        outputs, after = self.decoder(x, state)  # (B, T, D)
        # e_ts = h_t · W x_s        α = softmax(e)        c_t = Σ_s α_ts x_s
        scores = outputs @ memory["keys"].transpose(1, 2)  # (B, T, S)
        scores = scores.float().masked_fill(~memory["mask"].unsqueeze(1), float("-inf"))
        weights = scores.softmax(dim=-1)  # (B, T, S)
        return outputs, weights.to(outputs.dtype) @ memory["source"], weights, after

    def _step_by_step(
        self, x: Tensor, memory: Memory, state: State
    ) -> tuple[Tensor, Tensor, Tensor, State]:
        outputs, contexts, all_weights = [], [], []
        for x_t in x.split(1, dim=1):  # (B, 1, dim)
            # e_s = v · tanh(W x_s + b + U h_{t-1})        c_t = Σ_s α_s x_s
            hidden = memory["keys"] + self.query(state[0][-1]).unsqueeze(1)  # (B, S, D)
            weights = self.additive.weights(hidden, memory["mask"]).unsqueeze(1)  # (B, 1, S)
            contexts.append(weights.to(memory["source"].dtype) @ memory["source"])  # (B, 1, C)
            output, state = self.decoder(torch.cat([x_t, contexts[-1]], dim=-1), state)  # (B, 1, D)
            outputs.append(output)
            all_weights.append(weights)
        joined = (torch.cat(parts, dim=1) for parts in (outputs, contexts, all_weights))
        return *joined, state  # type: ignore[return-value]
