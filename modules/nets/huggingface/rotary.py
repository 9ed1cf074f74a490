"""The formats of `transformers`' LlamaForCausalLM and GPTNeoXForCausalLM: rotary positions.

Llama (Touvron et al. 2023): RMSNorm, SwiGLU, grouped-query attention, no biases. GPT-NeoX (Black et
al. 2022) with sequential residuals: LayerNorm, GELU, biases.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.nets.gpt import GPT, NORM_EPS
from modules.nets.huggingface.folder import check_options

NEOX_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh"}  # theirs → ours
NEOX_LAYERS = {  # ours, in "blocks.<number>." → theirs, in "gpt_neox.layers.<number>."
    "norm_1": "input_layernorm",
    "attention.qkv": "attention.query_key_value",
    "attention.proj": "attention.dense",
    "norm_2": "post_attention_layernorm",
    "mlp.up": "mlp.dense_h_to_4h",
    "mlp.proj": "mlp.dense_4h_to_h",
}
LLAMA_LAYERS = {  # ours, in "blocks.<number>." → theirs, in "model.layers.<number>."
    "norm_1.weight": ("input_layernorm.weight",),
    "attention.qkv.weight": tuple(f"self_attn.{name}_proj.weight" for name in "qkv"),
    "attention.proj.weight": ("self_attn.o_proj.weight",),
    "norm_2.weight": ("post_attention_layernorm.weight",),
    "mlp.up.weight": ("mlp.up_proj.weight", "mlp.gate_proj.weight"),
    "mlp.proj.weight": ("mlp.down_proj.weight",),
}


def _read_arguments(folder: Path, config: dict[str, Any], theta: str) -> dict[str, Any]:
    """Return the arguments of GPT that both formats have in common."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ValueError(f"{folder}: option rope_type={kind!r} is not supported")
    return {
        "vocab_size": config["vocab_size"],
        "context": config["max_position_embeddings"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "dim": config["hidden_size"],
        "hidden_size": config["intermediate_size"],
        "dropout": config.get("attention_dropout", 0.0),
        "positions": "rotary",
        "rope_theta": float(rope.get("rope_theta", config.get(theta, 10000.0))),
    }


def _common_config(net: GPT) -> dict[str, Any]:
    return {
        "vocab_size": net.vocab_size,
        "max_position_embeddings": net.context,
        "hidden_size": net.dim,
        "num_hidden_layers": net.num_layers,
        "num_attention_heads": net.num_heads,
        "intermediate_size": net.get_submodule("blocks.0.mlp.proj").in_features,
        "attention_dropout": net.dropout,
        "tie_word_embeddings": net.tie_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def read_llama_arguments(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of GPT for a config.

    Raises:
        KeyError: If a size is missing.
        ValueError: If GPT does not support one of its options.
    """
    config = {"rms_norm_eps": 1e-6} | config  # the default of transformers
    supported = {
        "hidden_act": ("silu",),
        "rms_norm_eps": (NORM_EPS,),
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "head_dim": (config["hidden_size"] // config["num_attention_heads"], None),
    }
    check_options(folder, config, supported)
    return _read_arguments(folder, config, "rope_theta") | {
        "norm": "rms",
        "activation": "swiglu",
        "bias": False,
        "num_kv_heads": config.get("num_key_value_heads"),
        "tie_embeddings": config.get("tie_word_embeddings", False),
    }


def llama_names(net: GPT) -> dict[str, tuple[str, ...]]:
    """Map the name of each weight, ours → theirs (concatenated along the first dimension)."""
    names: dict[str, tuple[str, ...]] = {
        "token_embedding.weight": ("model.embed_tokens.weight",),
        "last_norm.weight": ("model.norm.weight",),
    }
    for number in range(net.num_layers):
        for ours, theirs in LLAMA_LAYERS.items():
            names[f"blocks.{number}.{ours}"] = tuple(f"model.layers.{number}.{n}" for n in theirs)
    if net.head is not None:
        names["head.weight"] = ("lm_head.weight",)
    return names


def read_llama_weights(theirs: dict[str, Tensor], net: GPT) -> dict[str, Tensor]:
    """Return the weights by our names.

    Raises:
        KeyError: If one is missing.
    """
    return {
        ours: torch.cat([theirs[name] for name in names])
        for ours, names in llama_names(net).items()
    }


def write_llama_weights(net: GPT) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights by Llama's names, and its config."""
    kv_heads = net.num_kv_heads or net.num_heads
    size = net.dim // net.num_heads
    ours = net.state_dict()
    weights: dict[str, Tensor] = {}
    for name, theirs in llama_names(net).items():
        heads = [net.num_heads * size, kv_heads * size, kv_heads * size]
        sizes = heads if "qkv" in name else [len(ours[name]) // len(theirs)] * len(theirs)
        weights |= dict(zip(theirs, ours[name].split(sizes), strict=True))
    return weights, _common_config(net) | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "num_key_value_heads": kv_heads,
        "head_dim": size,
        "rms_norm_eps": NORM_EPS,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": net.rope_theta,  # its name before transformers 5; below the one since
        "rope_parameters": {"rope_type": "default", "rope_theta": net.rope_theta},
    }


def read_neox_arguments(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of GPT for a config.

    Raises:
        KeyError: If a size is missing.
        ValueError: If GPT does not support one of its options.
    """
    config = {"use_parallel_residual": True, "rotary_pct": 0.25} | config  # transformers' defaults
    rope = config.get("rope_parameters") or {}
    config["rotary_pct"] = rope.get("partial_rotary_factor", config["rotary_pct"])
    supported = {
        "hidden_act": tuple(NEOX_ACTIVATIONS),
        "layer_norm_eps": (NORM_EPS,),
        "use_parallel_residual": (False,),
        "attention_bias": (True,),
        "rotary_pct": (1.0,),
    }
    check_options(folder, config, supported)
    return _read_arguments(folder, config, "rotary_emb_base") | {
        "activation": NEOX_ACTIVATIONS[config.get("hidden_act", "gelu")],
        "tie_embeddings": config.get("tie_word_embeddings", False),
    }


def neox_names(net: GPT) -> dict[str, str]:
    """Map the name of each layer with weight and bias, ours → theirs."""
    names = {
        f"blocks.{number}.{ours}": f"gpt_neox.layers.{number}.{theirs}"
        for number in range(net.num_layers)
        for ours, theirs in NEOX_LAYERS.items()
    }
    return names | {"last_norm": "gpt_neox.final_layer_norm"}


def read_neox_weights(theirs: dict[str, Tensor], net: GPT) -> dict[str, Tensor]:
    """Return the weights by our names.

    Raises:
        KeyError: If one is missing.
    """
    weights = {"token_embedding.weight": theirs["gpt_neox.embed_in.weight"]}
    for ours, name in neox_names(net).items():
        for kind in ("weight", "bias"):
            tensor = theirs[f"{name}.{kind}"]
            if ours.endswith("qkv"):  # q, k and v of each head → heads of q, of k, of v
                heads = tensor.view(net.num_heads, 3, -1, *tensor.shape[1:])
                tensor = heads.transpose(0, 1).reshape(tensor.shape)
            weights[f"{ours}.{kind}"] = tensor
    if net.head is not None:
        weights["head.weight"] = theirs["embed_out.weight"]
    return weights


def write_neox_weights(net: GPT) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights by GPT-NeoX's names (zeros for biases the net lacks), and its config."""
    ours = net.state_dict()
    weights = {"gpt_neox.embed_in.weight": ours["token_embedding.weight"]}
    for name, theirs in neox_names(net).items():
        weight = ours[f"{name}.weight"]
        pair = {"weight": weight, "bias": ours.get(f"{name}.bias", weight.new_zeros(len(weight)))}
        for kind, tensor in pair.items():
            if name.endswith("qkv"):  # heads of q, of k, of v → q, k and v of each head
                parts = tensor.view(3, net.num_heads, -1, *tensor.shape[1:])
                tensor = parts.transpose(0, 1).reshape(tensor.shape)
            weights[f"{theirs}.{kind}"] = tensor
    if net.head is not None:
        weights["embed_out.weight"] = ours["head.weight"]
    return weights, _common_config(net) | {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "hidden_act": {ours: theirs for theirs, ours in NEOX_ACTIVATIONS.items()}[net.activation],
        "hidden_dropout": net.dropout,
        "layer_norm_eps": NORM_EPS,
        "use_parallel_residual": False,
        "attention_bias": True,
        "rotary_pct": 1.0,  # their names before transformers 5; below the ones since
        "rotary_emb_base": net.rope_theta,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": net.rope_theta,
            "partial_rotary_factor": 1.0,
        },
    }
