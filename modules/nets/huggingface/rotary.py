"""A GPT with rotary positions as a Hugging Face folder: `config.json`, safetensors, equal logits.

Written as one of the two architectures of `transformers` that compute the same. GPT-NeoX (Black et
al. 2022), its residuals one after the other: LayerNorm and GELU; biases that a net lacks are zero.
Llama (Touvron et al. 2023): RMSNorm, SwiGLU, grouped heads, no biases.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from modules.nets.gpt import GPT, NORM_EPS

Weights = dict[str, Tensor]

NEOX_NAMES = {  # ours → theirs, in block N
    "norm_1": "input_layernorm",
    "attention.qkv": "attention.query_key_value",
    "attention.proj": "attention.dense",
    "norm_2": "post_attention_layernorm",
    "mlp.up": "mlp.dense_h_to_4h",
    "mlp.proj": "mlp.dense_4h_to_h",
}
NEOX_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new"}


def save_rotary(net: GPT, folder: str | Path) -> None:
    """Writes a folder that `AutoModelForCausalLM.from_pretrained` opens, with the same logits.

    Args:
        net: a GPT with rotary positions.
        folder: is made where it does not exist.

    Raises:
        ValueError: options that neither architecture has together.
    """
    has = {name: getattr(net, name) for name in ("norm", "activation", "bias", "num_kv_heads")}
    whole = has["num_kv_heads"] in (None, net.num_heads)
    if has["norm"] == "layer" and has["activation"] in NEOX_ACTIVATIONS and whole:
        weights, config = gpt_neox(net)
    elif has["norm"] == "rms" and has["activation"] == "swiglu" and not has["bias"]:
        weights, config = llama(net)
    else:
        told = ", ".join(f"{name}={value!r}" for name, value in has.items())
        raise ValueError(
            f"this net has rotary positions and {told}. Of such nets those can be written that "
            "are GPT-NeoX (norm: layer, activation: gelu, as many heads of keys) or Llama (norm: "
            "rms, activation: swiglu, bias: false)"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    text = json.dumps(common(net) | config, indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def common(net: GPT) -> dict[str, Any]:
    """What both architectures call alike."""
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


def gpt_neox(net: GPT) -> tuple[Weights, dict[str, Any]]:
    """Weights by the names of GPTNeoXForCausalLM, and its config."""
    ours = net.state_dict()
    names = {
        f"blocks.{n}.{mine}": f"gpt_neox.layers.{n}.{its}"
        for n in range(net.num_layers)
        for mine, its in NEOX_NAMES.items()
    }
    weights = {"gpt_neox.embed_in.weight": ours["token_embedding.weight"]}
    for mine, its in (names | {"last_norm": "gpt_neox.final_layer_norm"}).items():
        weight = ours[f"{mine}.weight"]
        pair = {"weight": weight, "bias": ours.get(f"{mine}.bias", weight.new_zeros(len(weight)))}
        for kind, tensor in pair.items():
            if mine.endswith("qkv"):  # heads of queries, keys, values → those three of each head
                parts = tensor.view(3, net.num_heads, -1, *tensor.shape[1:])
                tensor = parts.transpose(0, 1).reshape(tensor.shape)
            weights[f"{its}.{kind}"] = tensor
    if net.head is not None:
        weights["embed_out.weight"] = ours["head.weight"]
    return weights, {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "hidden_act": NEOX_ACTIVATIONS[net.activation],
        "hidden_dropout": net.dropout,
        "layer_norm_eps": NORM_EPS,
        "use_parallel_residual": False,
        "attention_bias": True,
        "rotary_pct": 1.0,  # its name before transformers 5, and the one since
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 1.0,
        },
    }


def llama(net: GPT) -> tuple[Weights, dict[str, Any]]:
    """Weights by the names of LlamaForCausalLM, and its config."""
    ours = net.state_dict()
    heads, kv_heads = net.num_heads, net.num_kv_heads or net.num_heads
    size = net.dim // heads
    weights = {
        "model.embed_tokens.weight": ours["token_embedding.weight"],
        "model.norm.weight": ours["last_norm.weight"],
    }
    for number in range(net.num_layers):
        mine, its = f"blocks.{number}", f"model.layers.{number}"
        rows = [heads * size, kv_heads * size, kv_heads * size]
        qkv = ours[f"{mine}.attention.qkv.weight"].split(rows)
        content, gate = ours[f"{mine}.mlp.up.weight"].chunk(2)
        weights |= {
            f"{its}.input_layernorm.weight": ours[f"{mine}.norm_1.weight"],
            **{f"{its}.self_attn.{n}_proj.weight": w for n, w in zip("qkv", qkv, strict=True)},
            f"{its}.self_attn.o_proj.weight": ours[f"{mine}.attention.proj.weight"],
            f"{its}.post_attention_layernorm.weight": ours[f"{mine}.norm_2.weight"],
            f"{its}.mlp.up_proj.weight": content,
            f"{its}.mlp.gate_proj.weight": gate,
            f"{its}.mlp.down_proj.weight": ours[f"{mine}.mlp.proj.weight"],
        }
    if net.head is not None:
        weights["lm_head.weight"] = ours["head.weight"]
    return weights, {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "num_key_value_heads": kv_heads,
        "head_dim": size,
        "rms_norm_eps": NORM_EPS,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": 10000.0,  # its name before transformers 5, and the one since
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
