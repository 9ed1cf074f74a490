"""The layers of a network that an adapter changes, and the head that is trained with it."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from engine.errors import UserError
from modules.adapters.prefix import remove_prefix
from modules.nets.huggingface.prefix_attention import remove_prefixes

ALL_LINEAR = "all-linear"


def output_layer(net: nn.Module) -> nn.Module | None:
    """Return the layer that computes the logits; None if a language model ties it to a table."""
    if not hasattr(net, "num_classes"):
        head = getattr(net, "head", None)
        model: Any = getattr(net, "model", None)
        if head is None and hasattr(model, "get_output_embeddings"):
            head = model.get_output_embeddings()
        return head if isinstance(head, nn.Module) else None
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else None


def head_parameters(net: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a classification network that no other task can share.

    These are all parameters outside `net.backbone` if it has one, otherwise its output layer. The
    output layer of a language model belongs to the pretrained network: it is not such a head.
    """
    if not hasattr(net, "num_classes"):
        return []
    backbone = getattr(net, "backbone", None)
    if isinstance(backbone, nn.Module):
        inner = {id(parameter) for parameter in backbone.parameters()}
        return [parameter for parameter in net.parameters() if id(parameter) not in inner]
    layer = output_layer(net)
    return [] if layer is None else list(layer.parameters())


def target_layers(net: nn.Module, target_modules: str | Sequence[str]) -> list[str]:
    """Return the names of the layers to adapt.

    Args:
        net: The network.
        target_modules: `all-linear`: every linear layer but the head and the output layer; a list:
            layers with these names or whose names end with them, as in [qkv, mlp.proj]; any other
            string: a regular expression that a full name must match, as in peft.

    Raises:
        ValueError: If there is none, with some names of layers.
    """
    head = {id(parameter) for parameter in head_parameters(net)}
    output = output_layer(net)
    linear = [
        name
        for name, module in _linear_layers(net)
        if module is not output and id(module.weight) not in head
    ]
    if target_modules == ALL_LINEAR:
        found = linear
    elif isinstance(target_modules, str):
        found = [name for name, _ in net.named_modules() if re.fullmatch(target_modules, name)]
    else:
        ends = tuple(f".{name}" for name in target_modules)
        found = [name for name, _ in net.named_modules() if f".{name}".endswith(ends)]
    if not found:
        known = ", ".join(linear[:6]) + (", …" if len(linear) > 6 else "")
        raise ValueError(
            f"adapter: target_modules {target_modules!r} matches no layer of {type(net).__name__}; "
            + (
                f"its linear layers are {known}"
                if linear
                else "it has no linear layer besides its head: use modules.adapters.HeadOnly"
            )
        )
    return found


def adapted_layers(net: nn.Module) -> dict[str, Any]:
    """Return the layers of a network that peft has wrapped."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: m for name, m in net.named_modules() if isinstance(m, BaseTunerLayer)}


def remove_adapter(net: nn.Module, merge: bool) -> None:
    """Restore the layers of a network in place, with the adapter merged into them or without it.

    Raises:
        UserError: If the adapter is a prefix, which is not a change of the weights.
    """
    for module in list(net.modules()):
        if merge and hasattr(module, "prefix_keys"):
            raise UserError(
                "a prefix cannot be merged into the weights of a network: use the checkpoint "
                "itself, or train modules.adapters.LoRA."
            )
        if hasattr(module, "prefix_hook"):
            remove_prefix(module)
        elif hasattr(module, "attention_without_prefix"):
            remove_prefixes(module)
    for name, layer in adapted_layers(net).items():
        base = layer.get_base_layer()
        if merge and hasattr(base, "dequantize"):  # 4 bits cannot hold the update
            base = base.dequantize()
            base.weight.data += layer.get_delta_weight("default")
        elif merge:
            layer.merge()
        net.set_submodule(name, base)


def _linear_layers(net: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Yield the linear layers; those of GPT-2 in transformers are of the class Conv1D."""
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":
            yield name, module
