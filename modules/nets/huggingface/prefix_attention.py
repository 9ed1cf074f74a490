"""Trained keys and values that every token attends to, in models of transformers.

An attention function of transformers, chosen by the config of a model. It is given the keys and
values of a layer after rotary embeddings, so that the prefix has no position, and of all tokens of
a cache, so that the prefix is not cached.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NAME = "prefix"  # of the attention function
UNSUPPORTED = ("softcap", "s_aux", "position_bias")  # arguments that change the scores of attention


def attend(
    layer: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Return the attended values (B, T, H, K) and the weights of the tokens (B, H, T, S).

    Args:
        layer: The attention layer; `prefix_keys` and `prefix_values` are (G, P, K).
        query: (B, H, T, K).
        key: (B, G, S, K); G divides H.
        value: (B, G, S, K).
        attention_mask: Added to the scores, (B or 1, 1, T, S).
        dropout: Probability of dropping a weight.
        scaling: Factor of the scores, 1 / √K by default.
        **options: Further arguments of attention functions, which are not used.
    """
    length = layer.prefix_keys.shape[1]
    key = torch.cat([_rows(layer.prefix_keys, key), key], dim=2)  # (B, G, P + S, K)
    value = torch.cat([_rows(layer.prefix_values, value), value], dim=2)
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))  # (B, H, P + S, K)
    scores = query @ key.mT * (scaling or query.shape[-1] ** -0.5)  # (B, H, T, P + S)
    if attention_mask is not None:
        scores = scores + F.pad(attention_mask, (length, 0))  # the prefix is never masked
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, dropout, layer.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights[..., length:]


def _rows(prefix: Tensor, part: Tensor) -> Tensor:
    return prefix.to(part.dtype).expand(len(part), -1, -1, -1)


def add_prefixes(model: Any, length: int) -> None:
    """Let all tokens attend to `length` trained keys and values in every attention layer.

    Raises:
        ValueError: If attention of this architecture cannot be replaced.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    sizes: dict[nn.Module, torch.Size] = {}

    def record(layer: nn.Module, query: Tensor, key: Tensor, *args: Any, **options: Any) -> Any:
        sizes[layer] = key.shape
        if any(options.get(name) is not None for name in UNSUPPORTED):
            sizes.clear()
        return query.transpose(1, 2), None

    name = type(model).__name__
    used, training = model.config._attn_implementation, model.training  # noqa: SLF001 no public attribute
    AttentionMaskInterface.register(NAME, eager_mask)
    AttentionInterface.register(NAME, record)
    try:
        model.set_attn_implementation(NAME)
        with torch.no_grad():  # the layers and the sizes of their keys are those of a forward pass
            model.eval()(input_ids=torch.zeros(1, 2, dtype=torch.long, device=model.device))
    except (ValueError, KeyError) as error:
        model.set_attn_implementation(used)
        raise ValueError(f"PrefixTuning: {name} does not support it: {error}") from error
    finally:
        model.train(training)
        AttentionInterface.register(NAME, attend)
    if not sizes:
        model.set_attn_implementation(used)
        raise ValueError(
            f"PrefixTuning: attention of {name} cannot be replaced. Use modules.adapters.LoRA"
        )
    for layer, (_, heads, _, width) in sizes.items():
        for part in ("prefix_keys", "prefix_values"):
            weight = torch.empty(heads, length, width, device=model.device).normal_(std=0.02)
            layer.register_parameter(part, nn.Parameter(weight))
    model.attention_without_prefix = used


def remove_prefixes(model: Any) -> None:
    """Undo `add_prefixes`."""
    model.set_attn_implementation(model.attention_without_prefix)
    del model.attention_without_prefix
    for layer in model.modules():
        if hasattr(layer, "prefix_keys"):
            del layer.prefix_keys, layer.prefix_values
