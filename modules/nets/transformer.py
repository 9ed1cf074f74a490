"""Transformer: an encoder–decoder for translation, built from attention alone.

Vaswani et al. 2017, "Attention is all you need", complete. Recurrent networks process one token at
a time and pass information through every token in between. New here: there is no recurrence. In the
encoder every token attends to every other one; in the decoder a token attends to earlier target
tokens (a causal mask hides later ones) and, by cross-attention, to the whole source. All positions
of a training pair are computed in parallel.

`decode` follows the interface of language models (see bigram.py) with the encoder's memory as an
extra argument: `state=None` processes a whole text, a state of `init_state` continues one.
"""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets.gpt import SelfAttention, make_norm
from modules.nets.layers.attention import KeyValueCache, attention, causal_mask, padding_mask
from modules.nets.layers.dropout import Dropout
from modules.nets.layers.feed_forward import FeedForward
from modules.nets.transformer_classifier import sinusoidal_positions

Memory = dict[str, Tensor]  # the encoded source, each tensor with B rows
State = list[KeyValueCache]  # one per decoder block


class CrossAttention(nn.Module):
    """Multi-head attention from target tokens to source tokens."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.weights_dropout = Dropout(dropout)
        self.dropout = Dropout(dropout)

    def split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, T, K)

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Project the encoded source (B, S, D), once for all target tokens."""
        keys, values = self.kv(x).chunk(2, dim=-1)  # (B, S, D), (B, S, D)
        return self.split_heads(keys), self.split_heads(values)  # (B, H, S, K), (B, H, S, K)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        q = self.split_heads(self.q(x))  # (B, H, T, K)
        y = attention(q, keys, values, mask, self.weights_dropout)  # (B, H, T, K)
        return self.dropout(self.proj(y.transpose(1, 2).flatten(2)))  # (B, T, D)

    def weights(self, x: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """Return the attention weights, averaged over the heads, (B, T, S)."""
        q = self.split_heads(self.q(x))  # (B, H, T, K)
        scores = (q * q.shape[-1] ** -0.5) @ keys.transpose(-2, -1) + mask  # (B, H, T, S)
        return scores.float().softmax(dim=-1).mean(dim=1)  # (B, T, S)


class EncoderBlock(nn.Module):
    """Self-attention and feed-forward, each with a residual connection.

    The norm comes after the sum (post-norm, as in the paper) or before the sublayer (pre-norm,
    Xiong et al. 2020: trains without warm-up and in greater depth).
    """

    def __init__(
        self, dim: int, num_heads: int, hidden_size: int, dropout: float, pre_norm: bool
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = SelfAttention(dim, num_heads, num_heads, dropout)
        self.mlp = FeedForward(dim, "relu", dropout, hidden_size=hidden_size)
        self.norm_1, self.norm_2 = (make_norm("layer", dim, bias=True) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if self.pre_norm:
            x = x + self.attention(self.norm_1(x), mask)  # (B, S, D)
            return x + self.mlp(self.norm_2(x))  # (B, S, D)
        x = self.norm_1(x + self.attention(x, mask))  # (B, S, D)
        return self.norm_2(x + self.mlp(x))  # (B, S, D)


class DecoderBlock(nn.Module):
    """The encoder's block with cross-attention between its two sublayers."""

    def __init__(
        self, dim: int, num_heads: int, hidden_size: int, dropout: float, pre_norm: bool
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = SelfAttention(dim, num_heads, num_heads, dropout)
        self.cross = CrossAttention(dim, num_heads, dropout)
        self.mlp = FeedForward(dim, "relu", dropout, hidden_size=hidden_size)
        self.norm_1, self.norm_2, self.norm_3 = (
            make_norm("layer", dim, bias=True) for _ in range(3)
        )

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        cache: KeyValueCache | None,
        source: tuple[Tensor, Tensor, Tensor],
    ) -> Tensor:
        """`source` holds keys (B, H, S, K), values (B, H, S, K) and the mask (B, 1, 1, S)."""
        if self.pre_norm:
            x = x + self.attention(self.norm_1(x), mask, cache=cache)  # (B, T, D)
            x = x + self.cross(self.norm_2(x), *source)  # (B, T, D)
            return x + self.mlp(self.norm_3(x))  # (B, T, D)
        x = self.norm_1(x + self.attention(x, mask, cache=cache))  # (B, T, D)
        x = self.norm_2(x + self.cross(x, *source))  # (B, T, D)
        return self.norm_3(x + self.mlp(x))  # (B, T, D)


class Transformer(nn.Module):
    """Token embeddings plus sinusoidal positions, encoder blocks, decoder blocks, logits.

    Args:
        source_vocab_size: Number of tokens in the source vocabulary.
        target_vocab_size: Number of tokens in the target vocabulary.
        shared_vocabulary: Both languages have the same vocabulary and share one embedding.
        context: Maximum length of source and target in tokens.
        dim: Width of the residual stream, an even number.
        num_heads: Number of attention heads; must divide dim.
        num_layers: Number of encoder blocks, and of decoder blocks.
        hidden_size: Width of the feed-forward layers; default: 4 · dim.
        dropout: Dropout probability of embeddings, attention weights and sublayer outputs.
        norm: "post" (after each sum, as in the paper) or "pre" (before each sublayer).
        tie_embeddings: Use the target embedding as the output layer, too.
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
        if norm not in ("pre", "post"):
            raise ValueError(f"norm must be pre or post, got {norm!r}")
        if dim % num_heads or dim % 2:
            raise ValueError(f"dim ({dim}) must be even and a multiple of num_heads ({num_heads})")
        if shared_vocabulary and source_vocab_size != target_vocab_size:
            raise ValueError(
                f"shared_vocabulary needs vocabularies of equal size, got {source_vocab_size} and "
                f"{target_vocab_size} tokens"
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
        arguments = (dim, num_heads, hidden_size or 4 * dim, dropout, norm == "pre")
        self.encoder = nn.ModuleList(EncoderBlock(*arguments) for _ in range(num_layers))
        self.decoder = nn.ModuleList(DecoderBlock(*arguments) for _ in range(num_layers))
        self.last_norms = nn.ModuleList(
            make_norm("layer", dim, bias=True) if norm == "pre" else nn.Identity() for _ in range(2)
        )
        self.head = None if tie_embeddings else nn.Linear(dim, target_vocab_size)
        self.init_weights()

    def init_weights(self) -> None:
        """Glorot for matrices; N(0, 1/D) for embeddings, which are scaled by √D."""
        for name, parameter in self.named_parameters():
            if "embedding" in name:
                nn.init.normal_(parameter, std=self.dim**-0.5)
            elif parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def encode(self, inputs: dict[str, Tensor]) -> Memory:
        """Encode the source: keys and values for every decoder block, and the padding mask."""
        tokens, mask = inputs["input_ids"], inputs["attention_mask"].bool()  # (B, S), (B, S)
        blocked = padding_mask(mask)  # (B, 1, 1, S)
        x = self._embed(tokens, self.source_embedding, 0)  # (B, S, D)
        for block in self.encoder:
            x = block(x, blocked)  # (B, S, D)
        x = self.last_norms[0](x)  # (B, S, D)
        memory = {"mask": blocked}
        for number, block in enumerate(self.decoder):
            cross: CrossAttention = block.cross  # type: ignore[assignment]
            memory[f"keys.{number}"], memory[f"values.{number}"] = cross.keys_and_values(x)
        return memory

    def init_state(self, memory: Memory) -> State:
        return [KeyValueCache(self.context) for _ in self.decoder]

    @staticmethod
    def reorder_state(state: State, rows: Tensor) -> State:
        """Return the state of the given batch rows, for beam search."""
        return [cache.reorder(rows) for cache in state]

    def decode(
        self, tokens: Tensor, memory: Memory, state: State | None = None
    ) -> tuple[Tensor, State | None]:
        """Return the logits (B, T, V) of the tokens that follow each target token (B, T)."""
        start = state[0].length if state is not None else 0
        x = self._embed(tokens, self.target_embedding, start)  # (B, T, D)
        T = tokens.shape[1]
        mask = causal_mask(start, T, x.device) if T > 1 else None  # (T, S)
        for number, block in enumerate(self.decoder):
            source = (memory[f"keys.{number}"], memory[f"values.{number}"], memory["mask"])
            x = block(x, mask, None if state is None else state[number], source)  # (B, T, D)
        x = self.last_norms[1](x)  # (B, T, D)
        logits = F.linear(x, self.target_embedding.weight) if self.head is None else self.head(x)
        return logits, state  # (B, T, V)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the logits (B, T, V) for source and shifted target, all positions at once."""
        return self.decode(inputs["decoder_input_ids"], self.encode(inputs))[0]

    def attention_weights(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the last block's cross-attention weights, averaged over heads, (B, T, S)."""
        captured: list[Tensor] = []
        last: CrossAttention = self.decoder[-1].cross  # type: ignore[assignment]
        hook = last.register_forward_pre_hook(
            lambda cross, args: captured.append(cross.weights(args[0], args[1], args[3]))
        )
        try:
            self(inputs)
        finally:
            hook.remove()
        return captured[0]  # (B, T, S)

    def _embed(self, tokens: Tensor, embedding: nn.Embedding, start: int) -> Tensor:
        T = tokens.shape[1]
        if start + T > self.context:
            raise ValueError(
                f"the context of this Transformer is {self.context} tokens, got {start + T}"
            )
        x = embedding(tokens) * math.sqrt(self.dim)  # (B, T, D)
        positions = sinusoidal_positions(start + T, self.dim, tokens.device)[start:]  # (T, D)
        return self.drop(x + positions.to(x.dtype))  # (B, T, D)
