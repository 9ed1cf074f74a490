"""The format of `transformers`' GPT2LMHeadModel (Radford et al. 2019).

Its linear layers are stored transposed ("Conv1D": input × output).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.nets.gpt import GPT, NORM_EPS
from modules.nets.huggingface.folder import check_names, check_options

# The sizes of the smallest GPT-2, which apply where config.json leaves one out.
DEFAULTS = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12}
ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}  # to ours
PREFIX = "transformer."  # missing in the folders of a bare GPT2Model
LAYERS = {  # ours, in "blocks.<number>." → theirs, in "h.<number>."
    "norm_1": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.proj": "attn.c_proj",
    "norm_2": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.proj": "mlp.c_proj",
}


def weight_names(num_layers: int) -> dict[str, str]:
    """Map the name of each weight and bias, ours → theirs without the prefix."""
    layers = {
        f"blocks.{number}.{ours}": f"h.{number}.{theirs}"
        for number in range(num_layers)
        for ours, theirs in LAYERS.items()
    }
    names = {"token_embedding.weight": "wte.weight", "position_embedding.weight": "wpe.weight"}
    for ours, theirs in (layers | {"last_norm": "ln_f"}).items():
        for kind in ("weight", "bias"):
            names[f"{ours}.{kind}"] = f"{theirs}.{kind}"
    return names


def is_transposed(name: str) -> bool:
    return name.endswith((".qkv.weight", ".proj.weight", ".up.weight"))


def read_arguments(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of GPT for a config.

    Raises:
        ValueError: If GPT does not support one of its options.
    """
    config = DEFAULTS | config
    supported = {
        "activation_function": tuple(ACTIVATIONS),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    }
    check_options(folder, config, supported)
    return {
        "vocab_size": config["vocab_size"],
        "context": config["n_positions"],
        "num_layers": config["n_layer"],
        "num_heads": config["n_head"],
        "dim": config["n_embd"],
        "hidden_size": config.get("n_inner"),
        "dropout": config.get("resid_pdrop", 0.1),
        "activation": ACTIVATIONS[config.get("activation_function", "gelu_new")],
        "tie_embeddings": config.get("tie_word_embeddings", True),
        "norm_eps": config.get("layer_norm_epsilon", NORM_EPS),
    }


def read_weights(folder: Path, theirs: dict[str, Tensor], net: GPT) -> dict[str, Tensor]:
    """Return the weights by our names.

    Raises:
        ValueError: If weights are missing or unexpected.
    """
    theirs = {name.removeprefix(PREFIX): tensor for name, tensor in theirs.items()}
    names = weight_names(net.num_layers)
    if net.head is not None:
        names["head.weight"] = "lm_head.weight"
    check_names(folder, {*names.values()}, {*theirs})
    return {
        ours: theirs[name].T if is_transposed(ours) else theirs[name]
        for ours, name in names.items()
    }


def write_weights(net: GPT) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights by GPT-2's names (zeros for biases the net lacks) and its config.

    Raises:
        ValueError: If the net has an option that GPT-2 does not have.
    """
    foreign = [
        f"{option}={getattr(net, option)!r}"
        for option, allowed in {
            "norm": ("layer",),
            "activation": tuple(ACTIVATIONS.values()),
            "num_kv_heads": (None, net.num_heads),
            "head_dim": (None, net.dim // net.num_heads),
            "qkv_bias": (None, net.bias),
            "qk_norm": (False,),
        }.items()
        if getattr(net, option) not in allowed
    ]
    if foreign:
        raise ValueError(
            f"a GPT with learned positions is exported as GPT-2, which has no {', '.join(foreign)}"
        )
    ours = net.state_dict()
    weights = {}
    for name, theirs in weight_names(net.num_layers).items():
        if name in ours:
            weight = ours[name].T if is_transposed(name) else ours[name]
        else:
            weight = torch.zeros(len(ours[name.removesuffix("bias") + "weight"]))
        weights[PREFIX + theirs] = weight
    if net.head is not None:
        weights["lm_head.weight"] = ours["head.weight"]
    return weights, {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": net.vocab_size,
        "n_positions": net.context,
        "n_ctx": net.context,
        "n_embd": net.dim,
        "n_layer": net.num_layers,
        "n_head": net.num_heads,
        "n_inner": net.hidden_size,
        "activation_function": {ours: name for name, ours in reversed(ACTIVATIONS.items())}[
            net.activation
        ],
        "layer_norm_epsilon": net.norm_eps,
        "resid_pdrop": net.dropout,
        "embd_pdrop": net.dropout,
        "attn_pdrop": net.dropout,
        "tie_word_embeddings": net.tie_embeddings,
        "bos_token_id": None,  # GPT-2's own, 50256, may lie outside this vocabulary
        "eos_token_id": None,
    }
