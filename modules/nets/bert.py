"""BERT: a Transformer encoder pretrained by masked language modeling, then fine-tuned.

Devlin et al. 2019, "BERT: pre-training of deep bidirectional transformers for language
understanding". The encoder of transformer_classifier.py learns from labels alone, which are always
scarce. New here: the encoder is trained twice. First on unlabeled text, by predicting masked words
from the context on both sides (`BertMLM`); then, with a new head, on labeled texts
(`BertClassifier`).

As in the paper: learned positions, an embedding for the first and the second segment of a pair,
post-norm blocks, exact GELU. Next-sentence prediction is left out: Liu et al. 2019 (RoBERTa) found
that it does not help.
"""

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets.gpt import SelfAttention
from modules.nets.huggingface.bert import load_bert_weights
from modules.nets.layers.attention import padding_mask
from modules.nets.layers.dropout import Dropout
from modules.nets.layers.feed_forward import FeedForward
from modules.nets.transformer_classifier import sinusoidal_positions

NORM_EPS = 1e-12
NUM_SEGMENTS = 2


class PostNormBlock(nn.Module):
    """Post-norm block: norm(x + attention(x)), then norm(x + mlp(x))."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(dim, num_heads, num_heads, dropout)
        self.norm_1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = FeedForward(dim, "gelu", dropout)
        self.norm_2 = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.norm_1(x + self.attention(x, mask))  # (B, T, D)
        return self.norm_2(x + self.mlp(x))  # (B, T, D)


class BertEncoder(nn.Module):
    """Tokens (B, T) to contextual vectors (B, T, D); arguments as of `BertMLM`."""

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
        self.segment_embedding = nn.Embedding(NUM_SEGMENTS, dim)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.drop = Dropout(dropout)
        self.blocks = nn.ModuleList(
            PostNormBlock(dim, num_heads, dropout) for _ in range(num_layers)
        )

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens = inputs["input_ids"]  # (B, T)
        T = tokens.shape[1]
        if self.context < T:
            raise ValueError(f"the context of this BERT is {self.context} tokens, got {T}")
        segments = inputs.get("token_type_ids")  # (B, T); default: all of the first segment
        x = self.token_embedding(tokens) + self.position_embedding.weight[:T]  # (B, T, D)
        if segments is None:
            x = x + self.segment_embedding.weight[0]  # (B, T, D)
        else:
            x = x + self.segment_embedding(segments)  # (B, T, D)
        x = self.drop(self.norm(x))  # (B, T, D)
        mask = inputs.get("attention_mask")  # (B, T); default: no padding
        if mask is not None:
            mask = padding_mask(mask.bool())  # (B, 1, 1, T)
        for block in self.blocks:
            x = block(x, mask)  # (B, T, D)
        return x


class BertMLM(nn.Module):
    """The encoder with the masked-language-modeling head, tied to the token embedding.

    Args:
        vocab_size: Number of tokens in the vocabulary.
        context: Maximum sequence length in tokens.
        num_layers: Number of blocks; 12 in BERT-base.
        num_heads: Number of attention heads, must divide dim; 12 in BERT-base.
        dim: Width of the residual stream; 768 in BERT-base.
        dropout: Dropout probability of embeddings, attention weights and block outputs.
        pretrained: A Hugging Face folder to initialize from, relative to the working directory or
            to data_dir. Its sizes must be those of the network; context may be smaller.
        data_dir: Folder of the data sets; train.py links it from the data.

    Raises:
        ValueError: If the sizes do not fit, or the folder cannot be read or does not fit.
    """

    not_in_checkpoints: ClassVar = ("pretrained", "data_dir")  # a checkpoint has all weights

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
            load_bert_weights(self, pretrained, data_dir)

    def forward(self, inputs: dict[str, Tensor], positions: Tensor | None = None) -> Tensor:
        """Return logits (B, T, V), or (B, N, V) at the given positions (B, N)."""
        x = self.encoder(inputs)  # (B, T, D)
        if positions is not None:
            x = x.gather(1, positions[:, :, None].expand(-1, -1, x.shape[-1]))  # (B, N, D)
        x = self.transform_norm(F.gelu(self.transform(x)))  # (B, N, D)
        return F.linear(x, self.encoder.token_embedding.weight, self.decoder_bias)  # (B, N, V)


class BertClassifier(nn.Module):
    """The encoder with a classification head on the vector of the first token, [CLS].

    Args:
        num_classes: Number of logits.
        vocab_size: Number of tokens in the vocabulary.
        context: Maximum sequence length in tokens.
        num_layers: Number of blocks; 12 in BERT-base.
        num_heads: Number of attention heads, must divide dim; 12 in BERT-base.
        dim: Width of the residual stream; 768 in BERT-base.
        dropout: Dropout probability of embeddings, attention weights, block outputs and the pooled
            vector.
        pretrained: A Hugging Face folder to initialize from, relative to the working directory or
            to data_dir. Its sizes must be those of the network; context may be smaller. The head is
            used where it has as many classes.
        data_dir: Folder of the data sets; train.py links it from the data.

    Raises:
        ValueError: If the sizes do not fit, or the folder cannot be read or does not fit.
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
        nn.init.normal_(self.head.weight, std=0.02)  # the first loss is close to ln(num_classes)
        if pretrained is not None:
            load_bert_weights(self, pretrained, data_dir)

    @property
    def backbone(self) -> nn.ModuleList:
        """All layers but the head, as callbacks.BackboneFinetuning expects."""
        return nn.ModuleList([self.encoder, self.pooler])

    def pooled(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return one vector per text, (B, D)."""
        return self.pooler(self.encoder(inputs)[:, 0]).tanh()  # (B, D)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.head(self.drop(self.pooled(inputs)))  # (B, num_classes)


def init_weights(net: nn.Module, dim: int) -> None:
    """Initialize with N(0, 0.02²) at BERT's width of 768, scaled by 1/√D for other widths.

    Positions start as sinusoids of the same magnitude instead of at random: a linear map then takes
    any position to its neighbor, and attention to adjacent tokens is learned sooner.
    """
    std = 0.02 * (768 / dim) ** 0.5
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif "position_embedding" in name:
            sinusoids = sinusoidal_positions(len(parameter), dim, torch.device("cpu"))  # (T, D)
            parameter.data.copy_(sinusoids[:, :dim] * std * 2**0.5)
        elif "norm" not in name:
            nn.init.normal_(parameter, std=std)
