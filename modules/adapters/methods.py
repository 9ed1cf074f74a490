"""The methods: LoRA, DoRA, QLoRA, IA3, prefix tuning and training of the head only."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from modules.adapters.layers import ALL_LINEAR, head_parameters, output_layer, target_layers
from modules.adapters.prefix import add_prefix
from modules.nets.gpt import SelfAttention
from modules.nets.huggingface.prefix_attention import add_prefixes
from modules.nets.huggingface.pretrained import Pretrained

# Output layers of feed-forward blocks: of our networks, and of BERT, GPT-2, Llama, OPT, GPT-NeoX.
FEED_FORWARD = r"(.*\.)?(mlp\.(c_)?proj|(?<!attention\.)output\.dense|down_proj|fc2|dense_4h_to_h)"


class Adapter(ABC):
    """What is trained of a network while its other weights are frozen."""

    needs_pretrained: ClassVar = False  # whether the base must be `pretrained` of the network

    def apply(self, net: nn.Module) -> None:
        """Freeze a network and add the adapter in place; class and forward stay the same.

        The head of a classification network is trained with the adapter, since it is newly
        initialized where the pretrained weights come from another task.

        Raises:
            ValueError: If the adapter does not fit the network.
        """
        net.requires_grad_(False)
        self.inject(net)
        for parameter in head_parameters(net):
            parameter.requires_grad_(True)

    @abstractmethod
    def inject(self, net: nn.Module) -> None:
        """Add trainable parameters to a frozen network."""


@dataclass
class LoRA(Adapter):
    """Low-rank updates of linear layers: W + scale · B A, with A and B of rank r.

    Hu et al. 2021, "LoRA: low-rank adaptation of large language models". B starts at zero, so that
    training starts from the pretrained network. The update can be merged into W: inference then
    takes no longer than without.

    Args:
        rank: Rank r of the update, at least 1.
        alpha: The update is scaled by alpha / rank.
        dropout: Dropout probability of the input of A, in [0, 1).
        target_modules: `all-linear`: all linear layers but the output layer; a list of names or
            ends of names; or a regular expression.
        use_rslora: Scale by alpha / √rank instead (Kalajdzievski 2023, rank-stabilized LoRA), which
            lets high ranks learn.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: str | Sequence[str] = ALL_LINEAR
    use_rslora: bool = False

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.rank < 1:
            raise ValueError(f"{name}: rank must be at least 1, got {self.rank}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"{name}: dropout must be in [0, 1), got {self.dropout}")

    def inject(self, net: nn.Module) -> None:
        from peft import LoraConfig

        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft only divides it
            lora_dropout=self.dropout,
            target_modules=_pattern(target_layers(net, self.target_modules)),
            use_rslora=self.use_rslora,
            use_dora=isinstance(self, DoRA),
        )
        _inject(config, net)


@dataclass
class DoRA(LoRA):
    """LoRA on the direction of a weight matrix, with a magnitude per output that is trained, too.

    Liu et al. 2024, "DoRA: weight-decomposed low-rank adaptation": m · (W + scale · B A) / ‖W +
    scale · B A‖, where the norm is that of each row. Often better than LoRA at low ranks, for a
    slower step.

    Args:
        rank: As of LoRA.
        alpha: As of LoRA.
        dropout: As of LoRA.
        target_modules: As of LoRA.
        use_rslora: As of LoRA.
    """


@dataclass
class QLoRA(LoRA):
    """LoRA on a base whose linear layers have weights of 4 bits.

    Dettmers et al. 2023, "QLoRA: efficient finetuning of quantized LLMs": NF4 in blocks of 64 with
    quantized scales, by bitsandbytes. An eighth of the memory of the float32 weights, for a slower
    step. Embeddings and the output layer keep their precision. The base is quantized when it is
    loaded, so it must be the `pretrained` source of the network. Merging gives a network in
    floating point.

    Args:
        rank: As of LoRA.
        alpha: As of LoRA.
        dropout: As of LoRA.
        target_modules: As of LoRA; all linear layers are quantized in any case.
        use_rslora: As of LoRA.
    """

    needs_pretrained: ClassVar = True

    def inject(self, net: nn.Module) -> None:
        try:
            from modules.adapters.nf4 import NF4Linear
        except ImportError as error:
            raise ValueError(
                'QLoRA needs bitsandbytes: pip install "stepladder[quantize]"'
            ) from error
        for name in target_layers(net, ALL_LINEAR):
            layer = net.get_submodule(name)
            if type(layer) is nn.Linear:
                net.set_submodule(name, NF4Linear(layer))
        super().inject(net)


@dataclass
class IA3(Adapter):
    """One trained factor per channel of the linear layers, starting at 1.

    Liu et al. 2022, "Few-shot parameter-efficient fine-tuning is better and cheaper than in-context
    learning". Needs far fewer parameters than LoRA. The factors multiply the outputs of a layer; in
    the second layer of a feed-forward block its inputs, as in the paper.

    Args:
        target_modules: As of LoRA.
    """

    target_modules: str | Sequence[str] = ALL_LINEAR

    def inject(self, net: nn.Module) -> None:
        from peft import IA3Config

        names = target_layers(net, self.target_modules)
        inputs = [name for name in names if re.fullmatch(FEED_FORWARD, name)]
        config = IA3Config(
            target_modules=_pattern(names), feedforward_modules=_pattern(inputs) if inputs else []
        )
        _inject(config, net)


@dataclass
class PrefixTuning(Adapter):
    """Trained keys and values that every token attends to, in each self-attention layer.

    Li & Liang 2021, "Prefix-tuning: optimizing continuous prompts for generation", without their
    reparametrization. The tokens keep their positions and the whole context. For networks with
    self-attention of modules.nets (GPT, BertClassifier, BertMLM, TransformerClassifier,
    Transformer) and of transformers. A prefix cannot be merged into the weights.

    Args:
        length: Number of keys and values per layer, at least 1.
    """

    length: int = 20

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"PrefixTuning: length must be at least 1, got {self.length}")

    def inject(self, net: nn.Module) -> None:
        if isinstance(net, Pretrained):
            add_prefixes(net.model, self.length)
            return
        layers = [module for module in net.modules() if isinstance(module, SelfAttention)]
        if not layers:
            raise ValueError(
                f"PrefixTuning: {type(net).__name__} has no self-attention of modules.nets, as GPT "
                "and BertClassifier have. Use modules.adapters.LoRA"
            )
        for layer in layers:
            add_prefix(layer, self.length)


@dataclass
class HeadOnly(Adapter):
    """Train only the head: the output layer, and what else a classifier adds to its backbone.

    The baseline of every other adapter: how good are the pretrained features as they are?
    """

    def inject(self, net: nn.Module) -> None:
        layer = output_layer(net)
        if layer is None:
            raise ValueError(
                f"HeadOnly: {type(net).__name__} has no output layer of its own; its logits are "
                "products with the token embedding. Use modules.adapters.LoRA"
            )
        layer.requires_grad_(True)


def _pattern(names: Sequence[str]) -> str:
    """Return a regular expression for exactly these layers; peft takes lists as ends of names."""
    return "|".join(map(re.escape, names))


def _inject(config: Any, net: nn.Module) -> None:
    from peft import inject_adapter_in_model

    inject_adapter_in_model(config, net)
