"""GPT: a decoder-only Transformer, in the form of GPT-2 with the later refinements as options.

Radford et al. 2019, "Language models are unsupervised multitask learners" (GPT-2); Vaswani et al.
2017, "Attention is all you need". An RNN must squeeze all that it read into one vector, and can
only be trained step after step. New here: every token looks directly at every earlier one, all
positions at once. Options: rotary positions (Su et al. 2021), RMSNorm (Zhang & Sennrich 2019),
SwiGLU (Shazeer 2020), grouped-query heads (Ainslie et al. 2023).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets.layers.dropout import Dropout
from modules.nets.layers.linear import Linear, linear

NORM_EPS = 1e-5


def make_norm(norm: str, dim: int, bias: bool) -> nn.Module:
    # layer: (x - mean) / sqrt(var + eps) · w + b        rms: x / sqrt(mean(x²) + eps) · w
    if norm == "layer":
        return nn.LayerNorm(dim, eps=NORM_EPS, bias=bias)
    return nn.RMSNorm(dim, eps=NORM_EPS)


Turns = tuple[Tensor, Tensor]


def rope_cache(start: int, length: int, size: int, device: torch.device) -> Turns:
    """Cosine and sine of the angle by which each pair of a head's channels turns at a position."""
    # angle(t, i) = t · 10000^(-2i / K)
    pairs = torch.arange(0, size, 2, dtype=torch.float32, device=device)  # (K/2,)
    rates = 10000.0 ** (-pairs / size)  # (K/2,)
    angles = torch.arange(start, start + length, device=device)[:, None] * rates  # (T, K/2)
    return angles.cos(), angles.sin()  # (T, K/2), (T, K/2)


def apply_rotary_emb(x: Tensor, turns: Turns) -> Tensor:
    """Turns the channels i and i + K/2 as a point in the plane: scores depend on distances only."""
    cos, sin = turns  # (T, K/2), (T, K/2)
    a, b = x.float().chunk(2, dim=-1)  # (B, H, T, K/2), (B, H, T, K/2)
    # (a cos - b sin, a sin + b cos)
    turned = torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(a * sin, b, cos)
    return torch.cat(turned, dim=-1).to(x.dtype)  # (B, H, T, K)


def causal_mask(start: int, length: int, device: torch.device) -> Tensor:
    """What is added to the scores: 0 where the token at start + t may look, -inf beyond it."""
    blocked = torch.full((length, start + length), float("-inf"), device=device)
    return blocked.triu(start + 1)  # (T, S)


def eager_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: nn.Module
) -> Tensor:
    # softmax(q kᵀ / sqrt(K) + mask) v
    B, H, _, K = q.shape
    q, k, v = (part.flatten(0, 1) for part in (q, k, v))  # (BH, T, K), (BH, S, K), (BH, S, K)
    if mask is None:
        scores = (q * K**-0.5) @ k.mT  # (BH, T, S)
    else:  # added while the scores are made, which saves reading and writing all of them again
        if mask.dim() == 4:  # one for each text
            mask = mask.expand(B, H, -1, -1).flatten(0, 1)  # (BH, 1, S)
        scores = torch.baddbmm(mask.to(q.dtype), q, k.mT, alpha=K**-0.5)  # (BH, T, S)
    weights = dropout(scores.softmax(dim=-1))  # (BH, T, S)
    return (weights @ v).unflatten(0, (B, H))  # (B, H, T, K)


class KeyValueCache:
    """Keys and values of the tokens that one layer has read, in memory for `capacity` of them."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self.keys: Tensor | None = None  # shape and precision come with the first tokens
        self.values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Takes those of the next T tokens; gives those of all S tokens so far, (B, G, S, K)."""
        if self.keys is None or self.values is None:
            B, G, _, K = keys.shape
            self.keys = keys.new_empty(B, G, self.capacity, K)
            self.values = values.new_empty(B, G, self.capacity, K)
        new = keys.shape[2]
        self.keys.narrow(2, self.length, new).copy_(keys)
        self.values.narrow(2, self.length, new).copy_(values)
        self.length += new
        return self.keys.narrow(2, 0, self.length), self.values.narrow(2, 0, self.length)

    def reorder(self, rows: Tensor) -> "KeyValueCache":
        """What these rows of the batch have read: a beam search moves, leaves and repeats them."""
        chosen = KeyValueCache(self.capacity)
        if self.keys is not None and self.values is not None:
            chosen.append(
                self.keys[:, :, : self.length].index_select(0, rows),
                self.values[:, :, : self.length].index_select(0, rows),
            )
        return chosen


class CausalSelfAttention(nn.Module):
    """Each token asks (q) those up to itself what they offer (k); it takes a mean of their (v)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_kv_heads: int,
        dropout: float,
        bias: bool,
        attention: str,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.head_dim = dim // num_heads
        self.attention = attention
        self.qkv = Linear(dim, (num_heads + 2 * num_kv_heads) * self.head_dim, bias=bias)
        self.proj = Linear(dim, dim, bias=bias)
        self.weights_dropout = Dropout(dropout)
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Tensor, mask: Tensor | None, turns: Turns | None, cache: KeyValueCache | None
    ) -> Tensor:
        B, T, _ = x.shape
        qkv = self.qkv(x)  # (B, T, (H + 2 G) K), or the heads of this process of them
        unit = qkv.shape[-1] // (self.num_heads + 2 * self.num_kv_heads)
        H, G = (n * unit // self.head_dim for n in (self.num_heads, self.num_kv_heads))
        heads = qkv.view(B, T, H + 2 * G, self.head_dim)  # (B, T, H + 2 G, K)
        if turns is None:
            q, k, v = (part.transpose(1, 2) for part in heads.split([H, G, G], dim=2))
        else:
            qk, v = (part.transpose(1, 2) for part in heads.split([H + G, G], dim=2))
            q, k = apply_rotary_emb(qk, turns).split([H, G], dim=1)  # (B, H, T, K), (B, G, T, K)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, G, S, K), (B, G, S, K)
        if self.num_kv_heads < self.num_heads:  # each key and value serves a group of queries
            k = k.repeat_interleave(self.num_heads // self.num_kv_heads, dim=1)  # (B, H, S, K)
            v = v.repeat_interleave(self.num_heads // self.num_kv_heads, dim=1)  # (B, H, S, K)
        y = self.attend(q, k, v, mask)  # (B, H, T, K)
        return self.dropout(self.proj(y.transpose(1, 2).flatten(2)))  # (B, T, D)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        if self.attention == "eager" or (
            # On a CPU, the fused kernel is the faster one in fp32 (28 against 23 ms for 12 × 6
            # heads × 256 tokens, forward and backward) but the slower one in bf16 (20 against 11
            # ms), and its dropout is a slow one. A single token is quicker with it in bf16, too.
            self.attention == "auto"
            and q.device.type == "cpu"
            and ((q.dtype == torch.bfloat16 and q.shape[2] > 1) or self.weights_dropout.active)
        ):
            return eager_attention(q, k, v, mask, self.weights_dropout)
        p = self.weights_dropout.p if self.training else 0.0
        if q.shape[2] == k.shape[2]:
            return F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        mask = None if mask is None else mask.to(q.dtype)  # (T, S)
        return F.scaled_dot_product_attention(q, k, v, mask, dropout_p=p)


class FeedForward(nn.Module):
    """Two layers, applied to each token by itself."""

    def __init__(
        self, dim: int, activation: str, dropout: float, bias: bool, hidden: int | None = None
    ) -> None:
        super().__init__()
        self.gated = activation == "swiglu"
        self.rectified = activation == "relu"
        self.approximate = "tanh" if activation == "gelu_tanh" else "none"
        # The gate is a third matrix: 2/3 of the width keeps the number of parameters (rounded up to
        # a multiple of 8).
        hidden = hidden or (-(-8 * dim // 3 // 8) * 8 if self.gated else 4 * dim)
        self.up = Linear(dim, 2 * hidden if self.gated else hidden, bias=bias)
        self.proj = Linear(hidden, dim, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        if self.gated:
            # SwiGLU(x) = (W x) ⊙ silu(V x)
            content, gate = self.up(x).chunk(2, dim=-1)  # (B, T, 8/3 D), (B, T, 8/3 D)
            hidden = content * F.silu(gate)  # (B, T, 8/3 D)
        elif self.rectified:
            # relu(x) = max(x, 0)
            hidden = F.relu(self.up(x))  # (B, T, 4D)
        else:
            # gelu(x) = x/2 · (1 + erf(x / sqrt(2)))   (Hendrycks & Gimpel 2016)
            #         ≈ x/2 · (1 + tanh(sqrt(2/π) (x + 0.044715 x³))), as GPT-2 was trained
            hidden = F.gelu(self.up(x), approximate=self.approximate)  # (B, T, 4D)
        return self.dropout(self.proj(hidden))  # (B, T, D)


class Block(nn.Module):
    """Attention, then feed-forward; each reads a normalised copy, adds to the stream (pre-norm)."""

    def __init__(self, attention: CausalSelfAttention, mlp: FeedForward, norms: list[nn.Module]):
        super().__init__()
        self.norm_1, self.norm_2 = norms
        self.attention = attention
        self.mlp = mlp

    def forward(
        self, x: Tensor, mask: Tensor | None, turns: Turns | None, cache: KeyValueCache | None
    ) -> Tensor:
        x = x + self.attention(self.norm_1(x), mask, turns, cache)  # (B, T, D)
        return x + self.mlp(self.norm_2(x))  # (B, T, D)


class GPT(nn.Module):
    """Embeddings, a stack of blocks, a last norm, and logits.

    Args:
        vocab_size: number of different tokens.
        context: the longest text, in tokens, that the net can see.
        num_layers: how many blocks.
        num_heads: attention heads a block; divides dim.
        dim: width of the stream.
        dropout: probability of dropping an element of embeddings, attention weights, block outputs.
        bias: whether linear layers and LayerNorm add a bias.
        positions: "learned" (a vector for each position) or "rotary" (queries and keys are turned).
        norm: "layer" or "rms".
        activation: "gelu"; "gelu_tanh", its approximation in GPT-2, which takes longer on a CPU;
            or "swiglu".
        num_kv_heads: heads of keys and values, each shared by a group of queries; None: num_heads.
        attention: "sdpa" (PyTorch's fused kernel), "eager", or "auto": the faster one for the
            device and the precision at hand.
        tie_embeddings: use the table of token vectors for the logits, too.
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
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        if dim % num_heads:
            raise ValueError(f"dim ({dim}) must be a multiple of num_heads ({num_heads})")
        if kv_heads < 1 or num_heads % kv_heads:
            raise ValueError(f"num_kv_heads ({kv_heads}) must divide num_heads ({num_heads})")
        if positions == "rotary" and dim // num_heads % 2:
            raise ValueError(f"rotary positions need an even head width, not {dim // num_heads}")
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
        self.token_embedding = nn.Embedding(vocab_size, dim)
        self.position_embedding = nn.Embedding(context, dim) if positions == "learned" else None
        self.drop = Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                CausalSelfAttention(dim, num_heads, kv_heads, dropout, bias, attention),
                FeedForward(dim, activation, dropout, bias),
                [make_norm(norm, dim, bias), make_norm(norm, dim, bias)],
            )
            for _ in range(num_layers)
        )
        self.last_norm = make_norm(norm, dim, bias)
        self.head = None if tie_embeddings else Linear(dim, vocab_size, bias=False)
        self.init_weights()

    def init_weights(self) -> None:
        """As GPT-2: N(0, 0.02²); 1/sqrt(2 · num_layers) of that for what joins the stream."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.endswith("proj.weight"):
                nn.init.normal_(parameter, std=0.02 * (2 * self.num_layers) ** -0.5)
            elif "norm" not in name:
                nn.init.normal_(parameter, std=0.02)

    def tensor_parallel_plan(self) -> dict[str, str | list[int]]:
        """Which matrices of every block several processes may share, see engine/distributed/sharding.py.

        Each process has some heads, and some channels of the feed-forward layer; the matrix after
        them is cut by rows. Two sums over the processes a block join what they give.
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

    def forward(
        self, tokens: Tensor, state: list[KeyValueCache] | None = None
    ) -> tuple[Tensor, list[KeyValueCache] | None]:
        T, start = tokens.shape[1], state[0].length if state is not None else 0
        if start + T > self.context:
            raise ValueError(
                f"this GPT sees {self.context} tokens, and {start} + {T} were given: "
                "begin with a fresh state and the last part of the text"
            )
        x = self.token_embedding(tokens)  # (B, T, D)
        turns = None
        if self.position_embedding is not None:
            x = x + self.position_embedding.weight[start : start + T]  # (B, T, D)
        else:
            turns = rope_cache(start, T, self.dim // self.num_heads, x.device)
        # One token at the end of a text may look at all of it.
        mask = causal_mask(start, T, x.device) if T > 1 else None  # (T, S)
        x = self.drop(x)
        for number, block in enumerate(self.blocks):
            x = block(x, mask, turns, None if state is None else state[number])  # (B, T, D)
        x = self.last_norm(x)  # (B, T, D)
        logits = linear(x, self.token_embedding.weight) if self.head is None else self.head(x)
        return logits, state  # (B, T, V)
