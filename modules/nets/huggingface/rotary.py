"""The formats of transformers' decoders with rotary positions: the family of Llama, and GPT-NeoX.

Llama (Touvron et al. 2023; SmolLM2 is one): RMSNorm, SwiGLU, grouped-query attention, no biases.
Mistral without sliding windows is the same, Qwen2 has biases of queries, keys and values, and Qwen3
norms of queries and keys. GPT-NeoX (Black et al. 2022) with sequential residuals: LayerNorm, GELU,
biases.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.nets.gpt import GPT, NORM_EPS
from modules.nets.huggingface.folder import UnsupportedError, check_names, check_options
from modules.nets.layers.rotary import SCALINGS, YARN_OPTIONS

MSCALES = ("mscale", "mscale_all_dim")  # of DeepSeek's YaRN
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
QWEN2_BIASES = {"attention.qkv.bias": tuple(f"self_attn.{name}_proj.bias" for name in "qkv")}
QK_NORMS = {f"attention.{n}_norm.weight": (f"self_attn.{n}_norm.weight",) for n in "qk"}  # Qwen3


def _read_arguments(folder: Path, config: dict[str, Any], theta: str) -> dict[str, Any]:
    """Return the arguments of GPT that the formats have in common."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "linear", "yarn", "llama3") or any(map(rope.get, MSCALES)):
        raise UnsupportedError(f"{folder}: option rope_type={kind!r} is not supported")
    rope = {"original_max_position_embeddings": config["max_position_embeddings"]} | rope
    scaling = {name: rope[name] for name in SCALINGS.get(kind, ())}
    if kind == "yarn":
        scaling |= {n: rope[n] for n in YARN_OPTIONS if rope.get(n) is not None}
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
        "rope_scaling": {"rope_type": kind} | scaling if scaling else None,
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
    """Return the arguments of GPT for a config of Llama, Mistral, Qwen2 or Qwen3.

    Raises:
        KeyError: If a size is missing.
        ValueError: If GPT does not support one of its options.
    """
    kind = config["model_type"]
    check_options(
        folder,
        config,
        {
            "hidden_act": ("silu",),
            "attention_bias": (False,),
            "mlp_bias": (False,),
            "partial_rotary_factor": (1.0,),
        },
    )
    _check_window(folder, config)
    return _read_arguments(folder, config, "rope_theta") | {
        "norm": "rms",
        "activation": "swiglu",
        "bias": False,
        "num_kv_heads": config.get("num_key_value_heads"),
        "tie_embeddings": config.get("tie_word_embeddings", False),
        "norm_eps": config.get("rms_norm_eps", 1e-6),
        "head_dim": config.get("head_dim", 128 if kind == "qwen3" else None),
        "qkv_bias": kind == "qwen2",
        "qk_norm": kind == "qwen3",
    }


def _check_window(folder: Path, config: dict[str, Any]) -> None:
    """Check that every token attends to all earlier ones.

    Raises:
        UnsupportedError: If a sliding window is shorter than the context.
    """
    if config["model_type"] == "mistral":
        window = config.get("sliding_window", 4096)  # the default of transformers
    else:
        window = config.get("sliding_window") if config.get("use_sliding_window") else None
    if window is not None and window < config["max_position_embeddings"]:
        raise UnsupportedError(
            f"{folder}: attention with a sliding window (sliding_window={window}) is not supported "
            "by modules.nets.GPT; use modules.nets.PretrainedCausalLM"
        )


def llama_names(net: GPT) -> dict[str, tuple[str, ...]]:
    """Map the name of each weight, ours → theirs (concatenated along the first dimension)."""
    names: dict[str, tuple[str, ...]] = {
        "token_embedding.weight": ("model.embed_tokens.weight",),
        "last_norm.weight": ("model.norm.weight",),
    }
    layers = (
        LLAMA_LAYERS | (QWEN2_BIASES if net.qkv_bias else {}) | (QK_NORMS if net.qk_norm else {})
    )
    for number in range(net.num_layers):
        for ours, theirs in layers.items():
            names[f"blocks.{number}.{ours}"] = tuple(f"model.layers.{number}.{n}" for n in theirs)
    if net.head is not None:
        names["head.weight"] = ("lm_head.weight",)
    return names


def read_llama_weights(folder: Path, theirs: dict[str, Tensor], net: GPT) -> dict[str, Tensor]:
    """Return the weights by our names.

    Raises:
        ValueError: If weights are missing or unexpected.
    """
    names = llama_names(net)
    check_names(folder, {name for parts in names.values() for name in parts}, {*theirs})
    return {ours: torch.cat([theirs[name] for name in parts]) for ours, parts in names.items()}


def write_llama_weights(net: GPT) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights by Llama's names and the config: of Llama, Qwen2 or Qwen3.

    Raises:
        ValueError: If none of them has the net's options.
    """
    if net.qkv_bias and net.qk_norm:
        raise ValueError("no architecture has both qkv_bias and qk_norm")
    kv_heads = net.num_kv_heads or net.num_heads
    size = net.head_dim or net.dim // net.num_heads
    ours = net.state_dict()
    weights: dict[str, Tensor] = {}
    for name, theirs in llama_names(net).items():
        heads = [net.num_heads * size, kv_heads * size, kv_heads * size]
        sizes = heads if "qkv" in name else [len(ours[name]) // len(theirs)] * len(theirs)
        weights |= dict(zip(theirs, ours[name].split(sizes), strict=True))
    kind = "Qwen3" if net.qk_norm else "Qwen2" if net.qkv_bias else "Llama"
    theta, scaling = net.rope_theta, net.rope_scaling
    if scaling and scaling["rope_type"] == "ntk":  # the same as another theta
        theta, scaling = theta * scaling["factor"] ** (size / (size - 2)), None
    return weights, _common_config(net) | {
        "architectures": [f"{kind}ForCausalLM"],
        "model_type": kind.lower(),
        "hidden_act": "silu",
        "num_key_value_heads": kv_heads,
        "head_dim": size,
        "rms_norm_eps": net.norm_eps,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": theta,  # the names before transformers 5; below the one since
        "rope_scaling": scaling,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta} | (scaling or {}),
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
        "use_parallel_residual": (False,),
        "attention_bias": (True,),
        "rotary_pct": (1.0,),
    }
    check_options(folder, config, supported)
    return _read_arguments(folder, config, "rotary_emb_base") | {
        "activation": NEOX_ACTIVATIONS[config.get("hidden_act", "gelu")],
        "norm_eps": config.get("layer_norm_eps", NORM_EPS),
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


def read_neox_weights(folder: Path, theirs: dict[str, Tensor], net: GPT) -> dict[str, Tensor]:
    """Return the weights by our names.

    Raises:
        ValueError: If weights are missing or unexpected.
    """
    layers = {f"{n}.{kind}" for n in neox_names(net).values() for kind in ("weight", "bias")}
    head = set() if net.head is None else {"embed_out.weight"}
    check_names(folder, {"gpt_neox.embed_in.weight"} | layers | head, {*theirs})
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
        "layer_norm_eps": net.norm_eps,
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
