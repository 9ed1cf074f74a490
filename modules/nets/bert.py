"""BERT: a Transformer encoder that learns to read by guessing hidden words, then judges texts.

Devlin et al. 2019, "BERT: pre-training of deep bidirectional transformers for language
understanding". The encoder of transformer_classifier.py learns from labels alone, and there are
never many of them. New here: the same encoder is trained twice. First on plain text, of which there
is plenty: some words are hidden, and it guesses them from both sides (`BertMLM`). Then with the
head replaced, on labelled texts (`BertClassifier`).

As in the paper: learned places, a vector for the first and the second segment of a pair, the norm
after each part and not before it, exact GELU. The next-sentence task is left out: Liu et al. 2019
(RoBERTa) found that it does not help.
"""

import warnings
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets.gpt import FeedForward
from modules.nets.huggingface.bert import find_folder, sizes_of, weights_of
from modules.nets.layers.dropout import Dropout
from modules.nets.transformer_classifier import SelfAttention, sinusoidal_positions

NORM_EPS = 1e-12
SEGMENTS = 2  # a pair of texts has a first and a second one


class PostNormBlock(nn.Module):
    """Attention, then feed-forward; each adds to the stream, which is normalised after it."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(
            dim, num_heads, num_heads, dropout, bias=True, attention="auto"
        )
        self.norm_1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = FeedForward(dim, "gelu", dropout, bias=True)
        self.norm_2 = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.norm_1(x + self.attention(x, mask, None, None))  # (B, T, D)
        return self.norm_2(x + self.mlp(x))  # (B, T, D)


class BertEncoder(nn.Module):
    """Tokens to vectors that know what stands around them; arguments as of `BertMLM`."""

    def __init__(
        self,
        vocab_size: int,
        context: int,
        num_layers: int,
        num_heads: int,
        dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim ({dim}) must be a multiple of num_heads ({num_heads})")
        self.context = context
        self.token_embedding = nn.Embedding(vocab_size, dim)
        self.position_embedding = nn.Embedding(context, dim)
        self.segment_embedding = nn.Embedding(SEGMENTS, dim)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.drop = Dropout(dropout)
        self.blocks = nn.ModuleList(
            PostNormBlock(dim, num_heads, dropout) for _ in range(num_layers)
        )

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens = inputs["input_ids"]  # (B, T)
        T = tokens.shape[1]
        if self.context < T:
            raise ValueError(f"this BERT reads {self.context} tokens, and {T} were given")
        segments = inputs.get("token_type_ids")  # (B, T); left out: all is of the first segment
        x = self.token_embedding(tokens) + self.position_embedding.weight[:T]  # (B, T, D)
        if segments is None:
            x = x + self.segment_embedding.weight[0]  # (B, T, D)
        else:
            x = x + self.segment_embedding(segments)  # (B, T, D)
        x = self.drop(self.norm(x))  # (B, T, D)
        mask = inputs.get("attention_mask")  # (B, T); left out: nothing is padding
        if mask is not None:
            # What is added to the scores: 0 where there is text, -inf on padding.
            blocked = torch.zeros(mask.shape, device=x.device)
            mask = blocked.masked_fill(~mask.bool(), float("-inf"))[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask)  # (B, T, D)
        return x


class BertMLM(nn.Module):
    """The encoder, and for every place, or those asked for, logits of the word that stands there.

    The table of token vectors is that of the logits, too.

    Args:
        vocab_size: number of different tokens.
        context: the longest text, in tokens, that the net can read.
        num_layers: how many blocks; 12 in BERT-base.
        num_heads: attention heads a block; divides dim; 12 in BERT-base.
        dim: width of the stream; 768 in BERT-base.
        dropout: probability of dropping an element of vectors, attention weights, block outputs.
        pretrained: a Hugging Face folder whose weights to begin with, looked for as it stands and
            then in data_dir. The sizes must be those of the folder; context may be smaller.
        data_dir: folder of the data sets; train.py links it from the data.

    Raises:
        ValueError: the sizes do not go together, or the folder can't be read or does not fit.
    """

    not_in_checkpoints: ClassVar = ("pretrained", "data_dir")  # where its weights came from

    def __init__(
        self,
        vocab_size: int,
        context: int = 128,
        num_layers: int = 4,
        num_heads: int = 4,
        dim: int = 256,
        dropout: float = 0.1,
        pretrained: str | None = None,
        data_dir: str | Path = "data",
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.context = context
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.dim = dim
        self.dropout = dropout
        self.pretrained = pretrained
        self.data_dir = data_dir
        self.encoder = BertEncoder(vocab_size, context, num_layers, num_heads, dim, dropout)
        self.transform = nn.Linear(dim, dim)
        self.transform_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.decoder_bias = nn.Parameter(torch.zeros(vocab_size))
        init_weights(self, dim)
        if pretrained is not None:
            take_from_folder(self, pretrained, data_dir)

    def forward(self, inputs: dict[str, Tensor], places: Tensor | None = None) -> Tensor:
        """Logits (B, T, V), or (B, N, V) of the places (B, N) that are asked for."""
        x = self.encoder(inputs)  # (B, T, D)
        if places is not None:
            x = x.gather(1, places[:, :, None].expand(-1, -1, x.shape[-1]))  # (B, N, D)
        x = self.transform_norm(F.gelu(self.transform(x)))  # (B, N, D)
        return F.linear(x, self.encoder.token_embedding.weight, self.decoder_bias)  # (B, N, V)


class BertClassifier(nn.Module):
    """The encoder, and logits from what it made of the first token, [CLS].

    Args:
        num_classes: number of classes.
        vocab_size: number of different tokens.
        context: the longest text, in tokens, that the net can read.
        num_layers: how many blocks; 12 in BERT-base.
        num_heads: attention heads a block; divides dim; 12 in BERT-base.
        dim: width of the stream; 768 in BERT-base.
        dropout: probability of dropping an element of vectors, attention weights, block outputs,
            and of what the last layer reads.
        pretrained: a Hugging Face folder whose weights to begin with, looked for as it stands and
            then in data_dir. The sizes must be those of the folder; context may be smaller. The
            last layer is taken where it has as many classes.
        data_dir: folder of the data sets; train.py links it from the data.

    Raises:
        ValueError: the sizes do not go together, or the folder can't be read or does not fit.
    """

    not_in_checkpoints: ClassVar = ("pretrained", "data_dir")

    def __init__(
        self,
        num_classes: int,
        vocab_size: int,
        context: int = 128,
        num_layers: int = 4,
        num_heads: int = 4,
        dim: int = 256,
        dropout: float = 0.1,
        pretrained: str | None = None,
        data_dir: str | Path = "data",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.vocab_size = vocab_size
        self.context = context
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.dim = dim
        self.dropout = dropout
        self.pretrained = pretrained
        self.data_dir = data_dir
        self.encoder = BertEncoder(vocab_size, context, num_layers, num_heads, dim, dropout)
        self.pooler = nn.Linear(dim, dim)
        self.drop = Dropout(dropout)
        self.head = nn.Linear(dim, num_classes)
        init_weights(self, dim)
        if pretrained is not None:
            take_from_folder(self, pretrained, data_dir)

    @property
    def backbone(self) -> nn.ModuleList:
        """All but the head: what callbacks.BackboneFinetuning freezes at first."""
        return nn.ModuleList([self.encoder, self.pooler])

    def pooled(self, inputs: dict[str, Tensor]) -> Tensor:
        """One vector a text, (B, D)."""
        return self.pooler(self.encoder(inputs)[:, 0]).tanh()  # (B, D)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.head(self.drop(self.pooled(inputs)))  # (B, num_classes)


def init_weights(net: nn.Module, dim: int) -> None:
    """N(0, 0.02²) at BERT's width of 768; in narrower nets the sums of fewer are as large.

    Places, which are learned, begin as sines of the same size and not at random: then one matrix
    turns any place into its neighbour, and attention finds the words next to a hidden one sooner.
    """
    std = 0.02 * (768 / dim) ** 0.5
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif "position_embedding" in name:
            waves = sinusoidal_positions(len(parameter), dim, parameter.device)[:, :dim]  # (T, D)
            parameter.data.copy_(waves * std * 2**0.5)
        elif "norm" not in name:
            nn.init.normal_(parameter, std=std)
    if isinstance(net, BertClassifier):
        nn.init.normal_(net.head.weight, std=0.02)  # the first loss is near ln K


def take_from_folder(net: BertMLM | BertClassifier, pretrained: str, data_dir: str | Path) -> None:
    """Begin with the weights of a Hugging Face folder; a warning names what it does not have.

    Raises:
        ValueError: the folder can't be read, or is of another size than the net.
    """
    name = type(net).__name__
    folder = find_folder(pretrained, data_dir)
    sizes = sizes_of(folder)
    wrong = {
        size: there
        for size, there in sizes.items()
        if (getattr(net, size) > there if size == "context" else getattr(net, size) != there)
    }
    if vocab_size := wrong.pop("vocab_size", None):
        raise ValueError(
            f"{name}: {folder} knows {vocab_size:,} tokens, and the data have {net.vocab_size:,}: "
            f"read them with its own tokenizer, --data.tokenizer {folder}."
        )
    if longest := wrong.pop("context", None):
        raise ValueError(
            f"{name}: {folder} reads {longest} tokens, and {net.context} were asked for: give "
            f"--data.context {longest} or less."
        )
    if wrong:
        flags = " ".join(f"--model.net.{size} {there}" for size, there in wrong.items())
        raise ValueError(f"{name}: {folder} is of another size: give {flags}.")
    found = weights_of(folder, net.num_layers)
    places = "encoder.position_embedding.weight"
    found[places] = found[places][: net.context]
    ours = net.state_dict()
    fitting = {n: w for n, w in found.items() if n in ours and w.shape == ours[n].shape}
    if any(f"head.{part}" not in fitting for part in ("weight", "bias")):
        fitting = {n: w for n, w in fitting.items() if not n.startswith("head.")}
    if lacking := [n for n in ours if n.startswith("encoder.") and n not in fitting]:
        raise ValueError(f"{name}: {folder} has no {lacking[0]}, or one of another shape.")
    net.load_state_dict(fitting, strict=False)
    if fresh := [n for n in ours if n not in fitting]:
        warnings.warn(
            f"{name}: {len(fitting)} of {len(ours)} weights are from {folder}; freshly initialised "
            f"are {', '.join(fresh)}.",
            stacklevel=2,
        )
