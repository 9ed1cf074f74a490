"""GPT: a decoder-only Transformer in the form of GPT-2, with later refinements as options.

Radford et al. 2019, "Language models are unsupervised multitask learners" (GPT-2), after Vaswani et
al. 2017, "Attention is all you need". An RNN compresses its whole history into one vector and
trains one step at a time. New here: each token attends to every earlier token directly, and all
positions are computed in parallel. Options: rotary positions (Su et al. 2021), RMSNorm (Zhang &
Sennrich 2019), SwiGLU (Shazeer 2020) and grouped-query attention (Ainslie et al. 2023), which
together make the Llama architecture; biases of queries, keys and values (Qwen2), and norms of
queries and keys (Henry et al. 2020; Qwen3).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets.layers.attention import (
    KeyValueCache,
    attention,
    causal_mask,
    document_mask,
    document_positions,
    left_padding_mask,
)
from modules.nets.layers.chunked_loss import chunked_cross_entropy
from modules.nets.layers.dropout import Dropout
from modules.nets.layers.feed_forward import FeedForward
from modules.nets.layers.rotary import Rope, apply_rotary_emb, check_rope_scaling, rope_cache

NORM_EPS = 1e-5


def make_norm(norm: str, dim: int, bias: bool, eps: float = NORM_EPS) -> nn.Module:
    # layer: (x - mean) / sqrt(var + eps) · w + b        rms: x / sqrt(mean(x²) + eps) · w
    if norm == "layer":
        return nn.LayerNorm(dim, eps=eps, bias=bias)
    return nn.RMSNorm(dim, eps=eps)


class SelfAttention(nn.Module):
    """Multi-head self-attention; the mask decides which positions a token attends to."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_kv_heads: int,
        dropout: float,
        bias: bool = True,
        attention: str = "auto",
        is_causal: bool = False,
        head_dim: int | None = None,
        qkv_bias: bool | None = None,
        qk_norm_eps: float | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.head_dim = K = head_dim or dim // num_heads
        self.attention = attention
        self.is_causal = is_causal
        qkv_bias = bias if qkv_bias is None else qkv_bias
        self.qkv = nn.Linear(dim, (num_heads + 2 * num_kv_heads) * K, bias=qkv_bias)
        self.proj = nn.Linear(num_heads * K, dim, bias=bias)
        self.q_norm = None if qk_norm_eps is None else nn.RMSNorm(K, eps=qk_norm_eps)
        self.k_norm = None if qk_norm_eps is None else nn.RMSNorm(K, eps=qk_norm_eps)
        self.weights_dropout = Dropout(dropout)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rope: Rope | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        B, T, _ = x.shape
        qkv = self.qkv(x)  # (B, T, (H + 2 G) K); under tensor parallelism the local heads only
        unit = qkv.shape[-1] // (self.num_heads + 2 * self.num_kv_heads)
        H, G = (n * unit // self.head_dim for n in (self.num_heads, self.num_kv_heads))
        heads = qkv.view(B, T, H + 2 * G, self.head_dim)  # (B, T, H + 2 G, K)
        qk, v = (part.transpose(1, 2) for part in heads.split([H + G, G], dim=2))
        if self.q_norm is not None and self.k_norm is not None:
            qk = torch.cat([self.q_norm(qk[:, :H]), self.k_norm(qk[:, H:])], dim=1)
        if rope is not None:
            qk = apply_rotary_emb(qk, rope)  # (B, H + G, T, K)
        q, k = qk.split([H, G], dim=1)  # (B, H, T, K), (B, G, T, K)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, G, S, K), (B, G, S, K)
        is_causal = self.is_causal
        if G < H and T == 1:  # the queries of a group in place of its positions: no copy of k and v
            q, is_causal = q.reshape(B, G, H // G, self.head_dim), False  # (B, G, H/G, K)
        elif G < H:  # each key/value head serves a group of query heads
            k, v = (part.repeat_interleave(H // G, dim=1) for part in (k, v))  # (B, H, S, K), twice
        y = attention(q, k, v, mask, self.weights_dropout, self.attention, is_causal)
        y = y.reshape(B, H, T, self.head_dim)
        return self.dropout(self.proj(y.transpose(1, 2).flatten(2)))  # (B, T, D)


class Block(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, attention: SelfAttention, mlp: FeedForward, norms: list[nn.Module]) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = norms
        self.attention = attention
        self.mlp = mlp

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rope: Rope | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        x = x + self.attention(self.norm_1(x), mask, rope, cache)  # (B, T, D)
        return x + self.mlp(self.norm_2(x))  # (B, T, D)


class GPT(nn.Module):
    """Token and position embeddings, pre-norm blocks, a final norm, and logits.

    Args:
        vocab_size: Number of tokens in the vocabulary.
        context: Maximum sequence length in tokens.
        num_layers: Number of blocks.
        num_heads: Number of attention heads; must divide dim.
        dim: Width of the residual stream.
        dropout: Dropout probability of embeddings, attention weights and block outputs.
        bias: Whether linear layers and LayerNorm have a bias.
        positions: "learned" (one embedding per position) or "rotary" (RoPE).
        norm: "layer" or "rms".
        activation: "gelu", "gelu_tanh" (the approximation that GPT-2 uses; slower on CPUs) or
            "swiglu".
        num_kv_heads: Number of key/value heads, each shared by a group of queries; default:
            num_heads.
        attention: "sdpa" (PyTorch's fused kernel), "eager", or "auto": the faster one for the
            device and the precision.
        tie_embeddings: Use the token embedding as the output layer, too.
        hidden_size: Width of the feed-forward layers; default: 4 · dim, and with swiglu 8/3 · dim
            rounded up to a multiple of 8. Llama has 11008 at dim 4096.
        rope_theta: Base of the rotary frequencies; Llama 3 has 500000.
        rope_scaling: Changes the rotary frequencies of a longer context, as in a config.json:
            rope_type linear, ntk, yarn or llama3, and its arguments; see
            modules/nets/layers/rotary.py.
        norm_eps: Added to the variance or mean square in norms.
        head_dim: Width of a head; default: dim / num_heads.
        qkv_bias: Whether queries, keys and values have a bias; default: as `bias`.
        qk_norm: Normalize queries and keys of each head by RMSNorm.
    """

    def __init__(
        self,
        vocab_size: int,
        context: int = 256,
        num_layers: int = 6,
        num_heads: int = 6,
        dim: int = 384,
        dropout: float = 0.0,
        bias: bool = True,
        positions: str = "learned",
        norm: str = "layer",
        activation: str = "gelu",
        num_kv_heads: int | None = None,
        attention: str = "auto",
        tie_embeddings: bool = True,
        hidden_size: int | None = None,
        rope_theta: float = 10000.0,
        rope_scaling: dict[str, Any] | None = None,
        norm_eps: float = NORM_EPS,
        head_dim: int | None = None,
        qkv_bias: bool | None = None,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        for name, value, allowed in (
            ("positions", positions, ("learned", "rotary")),
            ("norm", norm, ("layer", "rms")),
            ("activation", activation, ("gelu", "gelu_tanh", "swiglu")),
            ("attention", attention, ("auto", "sdpa", "eager")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        if head_dim is None and dim % num_heads:
            raise ValueError(f"dim ({dim}) must be a multiple of num_heads ({num_heads})")
        if kv_heads < 1 or num_heads % kv_heads:
            raise ValueError(f"num_kv_heads ({kv_heads}) must divide num_heads ({num_heads})")
        size = head_dim or dim // num_heads
        if positions == "rotary" and size % 2:
            raise ValueError(f"rotary positions need an even head width, got {size}")
        check_rope_scaling(rope_scaling)
        self.vocab_size = vocab_size
        self.context = context
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.dim = dim
        self.dropout = dropout
        self.bias = bias
        self.positions = positions
        self.norm = norm
        self.activation = activation
        self.num_kv_heads = num_kv_heads
        self.attention = attention
        self.tie_embeddings = tie_embeddings
        self.hidden_size = hidden_size
        self.rope_theta = rope_theta
        self.rope_scaling = rope_scaling
        self.norm_eps = norm_eps
        self.head_dim = head_dim
        self.qkv_bias = qkv_bias
        self.qk_norm = qk_norm
        self.token_embedding = nn.Embedding(vocab_size, dim)
        self.position_embedding = nn.Embedding(context, dim) if positions == "learned" else None
        self.drop = Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                SelfAttention(
                    *(dim, num_heads, kv_heads, dropout, bias, attention),
                    is_causal=True,
                    head_dim=head_dim,
                    qkv_bias=qkv_bias,
                    qk_norm_eps=norm_eps if qk_norm else None,
                ),
                FeedForward(dim, activation, dropout, bias, hidden_size),
                [make_norm(norm, dim, bias, norm_eps), make_norm(norm, dim, bias, norm_eps)],
            )
            for _ in range(num_layers)
        )
        self.last_norm = make_norm(norm, dim, bias, norm_eps)
        self.head = None if tie_embeddings else nn.Linear(dim, vocab_size, bias=False)
        self.init_weights()

    def init_weights(self) -> None:
        """Initialize as GPT-2: N(0, 0.02²), residual projections times 1/sqrt(2 · num_layers)."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.endswith("proj.weight"):
                nn.init.normal_(parameter, std=0.02 * (2 * self.num_layers) ** -0.5)
            elif "norm" not in name:
                nn.init.normal_(parameter, std=0.02)

    def tensor_parallel_plan(self) -> dict[str, str | list[int]]:
        """Say how engine/distributed/sharding.py shards the matrices of a block (Megatron-LM).

        Column-wise by attention heads and by feed-forward channels (given as sizes of the groups of
        outputs), row-wise for the projections after them: two all-reduces per block.
        """
        kv_heads = self.num_kv_heads or self.num_heads
        hidden: int = self.get_submodule("blocks.0.mlp.proj").in_features  # type: ignore[assignment]
        return {
            "attention.qkv": [self.num_heads, kv_heads, kv_heads],
            "attention.proj": "rows",
            "mlp.up": [hidden, hidden] if self.activation == "swiglu" else [hidden],
            "mlp.proj": "rows",
        }

    def init_state(self, batch_size: int) -> list[KeyValueCache]:
        return [KeyValueCache(self.context) for _ in self.blocks]

    @staticmethod
    def reorder_state(state: list[KeyValueCache], rows: Tensor) -> list[KeyValueCache]:
        """Return a copy of the state with the given batch rows, which may be repeated."""
        return [cache.reorder(rows) for cache in state]

    @staticmethod
    def join_states(states: list[list[KeyValueCache]]) -> list[KeyValueCache]:
        """Return one state with the rows of several, which may have different lengths."""
        return [KeyValueCache.join(caches) for caches in zip(*states, strict=True)]

    @staticmethod
    def truncate_state(state: list[KeyValueCache], length: int) -> list[KeyValueCache]:
        """Return the state after the first `length` of its tokens."""
        for cache in state:
            cache.truncate(length)
        return state

    def forward(
        self,
        tokens: Tensor,
        state: list[KeyValueCache] | None = None,
        documents: Tensor | None = None,
        targets: Tensor | None = None,
        loss_chunk_size: int = 1024,
    ) -> tuple[Tensor, list[KeyValueCache] | None]:
        """Return the logits (B, T, V), or with targets the summed loss, and the state.

        Args:
            tokens: (B, T).
            state: Keys and values of earlier tokens, from `init_state`.
            documents: Number of the document of each token, (B, T), for samples packed into rows:
                a token attends to its own document only, and positions restart with each document.
            targets: (B, T), -100 where there is none: return the cross-entropy, summed over them,
                without the logits of all tokens.
            loss_chunk_size: Number of tokens whose logits are computed at a time.

        Raises:
            ValueError: If the tokens exceed the context, or documents come with a state.
        """
        T, start = tokens.shape[1], state[0].length if state is not None else 0
        if start + T > self.context:
            raise ValueError(
                f"the context of this GPT is {self.context} tokens, got {start} + {T}: "
                "start a new state from the last part of the text"
            )
        padding = None if state is None else state[0].padding
        mask: Tensor | None
        if documents is None and padding is not None:
            unused = torch.tensor(padding, device=tokens.device)  # (B,)
            positions = torch.arange(start, start + T, device=tokens.device) - unused[:, None]
            mask = left_padding_mask(unused, start, T)  # (B, 1, T, S)
        elif documents is None:
            positions = torch.arange(start, start + T, device=tokens.device)  # (T,)
            mask = causal_mask(start, T, tokens.device) if T > 1 else None  # (T, S)
        elif state is None:
            positions = document_positions(documents)  # (B, T)
            mask = document_mask(documents)  # (B, 1, T, T)
        else:
            raise ValueError("packed documents cannot be combined with a state")
        x = self.token_embedding(tokens)  # (B, T, D)
        rope = None
        if self.position_embedding is not None:
            x = x + self.position_embedding(positions)  # (B, T, D)
        else:
            size = self.head_dim or self.dim // self.num_heads
            rope = rope_cache(positions, size, self.rope_theta, self.rope_scaling)
        x = self.drop(x)
        for number, block in enumerate(self.blocks):
            x = block(x, mask, rope, None if state is None else state[number])  # (B, T, D)
        x = self.last_norm(x)  # (B, T, D)
        output = self.output_layer()
        if targets is not None:
            return chunked_cross_entropy(output, x, targets, loss_chunk_size), state
        return output(x), state  # (B, T, V)

    def output_layer(self) -> Callable[[Tensor], Tensor]:
        """Return the function from the last hidden states (…, D) to logits (…, V)."""
        if self.head is not None and type(self.head) is not nn.Linear:  # it has an adapter
            return self.head
        # The weight itself: under tensor parallelism the layer has it during the forward pass only.
        layer = self.token_embedding if self.head is None else self.head
        return partial(F.linear, weight=layer.weight)
