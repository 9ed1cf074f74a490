"""Transformer: an encoder reads the sentence, a decoder writes it in another language.

Vaswani et al. 2017, "Attention is all you need", the whole of it. Recurrent nets read and write
one word after the other, and hand on what they know through all words between. New here: no state
is carried. In the encoder every word looks at every other one; in the decoder a word looks at
those already written (a mask hides the others), and at all words of the source. So all positions
of a training pair are computed at once.

`decode` is the door of a language net, with what was read beside it: `state=None` reads a whole
text, a state of `init_state` makes it go on where it stopped.
"""

import math

from torch import Tensor, nn

from modules.nets.gpt import FeedForward, KeyValueCache, causal_mask, make_norm
from modules.nets.layers.dropout import Dropout
from modules.nets.layers.linear import Linear, linear
from modules.nets.transformer_classifier import (
    SelfAttention,
    attend,
    padding_mask,
    sinusoidal_positions,
)

Memory = dict[str, Tensor]  # what was read, each with B rows
State = list[KeyValueCache]  # what was written, one a block


class CrossAttention(nn.Module):
    """Each word that is written asks those that were read what they offer."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = Linear(dim, dim)
        self.kv = Linear(dim, 2 * dim)
        self.proj = Linear(dim, dim)
        self.weights_dropout = Dropout(dropout)
        self.dropout = Dropout(dropout)

    def heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, T, K)

    def read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the source (B, S, D): the same for every word that is written."""
        keys, values = self.kv(x).chunk(2, dim=-1)  # (B, S, D), (B, S, D)
        return self.heads(keys), self.heads(values)  # (B, H, S, K), (B, H, S, K)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        y = attend(self.heads(self.q(x)), keys, values, mask, self.weights_dropout)  # (B, H, T, K)
        return self.dropout(self.proj(y.transpose(1, 2).flatten(2)))  # (B, T, D)

    def weights(self, x: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """How much each word looks at each word of the source, the mean of all heads, (B, T, S)."""
        q = self.heads(self.q(x))  # (B, H, T, K)
        scores = (q * q.shape[-1] ** -0.5) @ keys.transpose(-2, -1) + mask  # (B, H, T, S)
        return scores.float().softmax(dim=-1).mean(dim=1)  # (B, T, S)


class EncoderBlock(nn.Module):
    """Self-attention, then feed-forward, each added to the stream.

    With the norm after that (post-norm, as in the paper) or on what each part reads (pre-norm,
    Xiong et al. 2020: it needs no warm-up, and can be stacked higher).
    """

    def __init__(self, dim: int, num_heads: int, hidden: int, dropout: float, pre: bool) -> None:
        super().__init__()
        self.pre = pre
        self.attention = SelfAttention(dim, num_heads, num_heads, dropout, True, "auto")
        self.mlp = FeedForward(dim, "relu", dropout, bias=True, hidden=hidden)
        self.norm_1, self.norm_2 = (make_norm("layer", dim, bias=True) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if self.pre:
            x = x + self.attention(self.norm_1(x), mask, None, None)  # (B, S, D)
            return x + self.mlp(self.norm_2(x))  # (B, S, D)
        x = self.norm_1(x + self.attention(x, mask, None, None))  # (B, S, D)
        return self.norm_2(x + self.mlp(x))  # (B, S, D)


class DecoderBlock(nn.Module):
    """As the encoder's, with cross attention between its two parts."""

    def __init__(self, dim: int, num_heads: int, hidden: int, dropout: float, pre: bool) -> None:
        super().__init__()
        self.pre = pre
        self.attention = SelfAttention(dim, num_heads, num_heads, dropout, True, "auto")
        self.cross = CrossAttention(dim, num_heads, dropout)
        self.mlp = FeedForward(dim, "relu", dropout, bias=True, hidden=hidden)
        self.norm_1, self.norm_2, self.norm_3 = (
            make_norm("layer", dim, bias=True) for _ in range(3)
        )

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        cache: KeyValueCache | None,
        read: tuple[Tensor, Tensor, Tensor],
    ) -> Tensor:
        """`read` is the source: keys (B, H, S, K), values (B, H, S, K), mask (B, 1, 1, S)."""
        if self.pre:
            x = x + self.attention(self.norm_1(x), mask, None, cache)  # (B, T, D)
            x = x + self.cross(self.norm_2(x), *read)  # (B, T, D)
            return x + self.mlp(self.norm_3(x))  # (B, T, D)
        x = self.norm_1(x + self.attention(x, mask, None, cache))  # (B, T, D)
        x = self.norm_2(x + self.cross(x, *read))  # (B, T, D)
        return self.norm_3(x + self.mlp(x))  # (B, T, D)


class Transformer(nn.Module):
    """Vectors and places of both sentences, blocks that read, blocks that write, logits.

    Args:
        source_vocab_size: number of different tokens that are read.
        target_vocab_size: number of different tokens that are written.
        shared_vocabulary: both languages have the same tokens, and so one table of vectors.
        context: the longest sentence, in tokens, that is read or written.
        dim: width of the stream, an even number.
        num_heads: attention heads a block; divides dim.
        num_layers: how many blocks read, and how many write.
        hidden_size: width of the feed-forward layers; 4 · dim by default.
        dropout: probability of dropping an element of vectors, attention weights, block outputs.
        norm: "post" (after each sum, as in the paper) or "pre" (on what each sublayer reads).
        tie_embeddings: use the table of target vectors for the logits, too.
    """

    def __init__(
        self,
        source_vocab_size: int,
        target_vocab_size: int,
        shared_vocabulary: bool = False,
        context: int = 64,
        dim: int = 256,
        num_heads: int = 4,
        num_layers: int = 3,
        hidden_size: int | None = None,
        dropout: float = 0.1,
        norm: str = "post",
        tie_embeddings: bool = True,
    ) -> None:
        super().__init__()
        if norm not in ("post", "pre"):
            raise ValueError(f"norm must be pre or post, not {norm!r}")
        if dim % num_heads or dim % 2:
            raise ValueError(f"dim ({dim}) must be even and a multiple of num_heads ({num_heads})")
        if shared_vocabulary and source_vocab_size != target_vocab_size:
            raise ValueError(
                f"shared_vocabulary: {source_vocab_size} and {target_vocab_size} tokens are not "
                "the same ones"
            )
        self.source_vocab_size = source_vocab_size
        self.target_vocab_size = target_vocab_size
        self.shared_vocabulary = shared_vocabulary
        self.context = context
        self.dim = dim
        self.num_heads = num_heads
        self.num_layers = num_layers
        self.hidden_size = hidden_size
        self.dropout = dropout
        self.norm = norm
        self.tie_embeddings = tie_embeddings
        self.target_embedding = nn.Embedding(target_vocab_size, dim)
        self.source_embedding = (
            self.target_embedding if shared_vocabulary else nn.Embedding(source_vocab_size, dim)
        )
        self.drop = Dropout(dropout)
        shape = (dim, num_heads, hidden_size or 4 * dim, dropout, norm == "pre")
        self.encoder = nn.ModuleList(EncoderBlock(*shape) for _ in range(num_layers))
        self.decoder = nn.ModuleList(DecoderBlock(*shape) for _ in range(num_layers))
        last = [make_norm("layer", dim, bias=True) for _ in range(2)] if norm == "pre" else []
        self.last_norms = nn.ModuleList(last or [nn.Identity(), nn.Identity()])
        self.head = None if tie_embeddings else Linear(dim, target_vocab_size)
        self.init_weights()

    def init_weights(self) -> None:
        """Glorot for matrices; N(0, 1/D) for vectors, which are scaled by √D."""
        for name, parameter in self.named_parameters():
            if "embedding" in name:
                nn.init.normal_(parameter, std=self.dim**-0.5)
            elif parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def encode(self, inputs: dict[str, Tensor]) -> Memory:
        """Read the source: keys and values for each block that writes, and where there is text."""
        tokens, mask = inputs["input_ids"], inputs["attention_mask"].bool()  # (B, S), (B, S)
        blocked = padding_mask(mask)  # (B, 1, 1, S)
        x = self._embed(tokens, self.source_embedding, 0)  # (B, S, D)
        for block in self.encoder:
            x = block(x, blocked)  # (B, S, D)
        x = self.last_norms[0](x)  # (B, S, D)
        memory = {"mask": blocked}
        for number, block in enumerate(self.decoder):
            memory[f"keys.{number}"], memory[f"values.{number}"] = block.cross.read(x)  # type: ignore[union-attr, operator]
        return memory

    def init_state(self, memory: Memory) -> State:
        return [KeyValueCache(self.context) for _ in self.decoder]

    @staticmethod
    def reorder_state(state: State, rows: Tensor) -> State:
        """The state of these rows of the batch."""
        return [cache.reorder(rows) for cache in state]

    def decode(
        self, tokens: Tensor, memory: Memory, state: State | None = None
    ) -> tuple[Tensor, State | None]:
        """Tokens (B, T) that were written to logits (B, T, V) of the ones that come next."""
        start = state[0].length if state is not None else 0
        x = self._embed(tokens, self.target_embedding, start)  # (B, T, D)
        # One token at the end of a text may look at all of it.
        T = tokens.shape[1]
        mask = causal_mask(start, T, x.device) if T > 1 else None  # (T, S)
        for number, block in enumerate(self.decoder):
            read = (memory[f"keys.{number}"], memory[f"values.{number}"], memory["mask"])
            x = block(x, mask, None if state is None else state[number], read)  # (B, T, D)
        x = self.last_norms[1](x)  # (B, T, D)
        logits = linear(x, self.target_embedding.weight) if self.head is None else self.head(x)
        return logits, state  # (B, T, V)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """What was read and written to logits (B, T, V): all positions at once."""
        return self.decode(inputs["decoder_input_ids"], self.encode(inputs))[0]

    def attention_weights(self, inputs: dict[str, Tensor]) -> Tensor:
        """How much each word that is written looks at each word of the source, (B, T, S).

        The mean of all heads of the last block.
        """
        seen: list[Tensor] = []
        last: CrossAttention = self.decoder[-1].cross  # type: ignore[assignment]
        hook = last.register_forward_pre_hook(
            lambda cross, given: seen.append(cross.weights(given[0], given[1], given[3]))
        )
        try:
            self(inputs)
        finally:
            hook.remove()
        return seen[0]  # (B, T, S)

    def _embed(self, tokens: Tensor, table: nn.Embedding, start: int) -> Tensor:
        T = tokens.shape[1]
        if start + T > self.context:
            raise ValueError(
                f"this Transformer reads and writes {self.context} tokens, and {start + T} were "
                "given"
            )
        vectors = table(tokens) * math.sqrt(self.dim)  # (B, T, D)
        places = sinusoidal_positions(start + T, self.dim, tokens.device)[start:]  # (T, D)
        return self.drop(vectors + places.to(vectors.dtype))  # (B, T, D)
