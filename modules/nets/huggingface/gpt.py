"""Read and write a GPT as a Hugging Face folder, with equal logits: GPT-2, Llama and its family."""

from pathlib import Path

import torch

from modules.nets.gpt import GPT
from modules.nets.huggingface import gpt2, rotary
from modules.nets.huggingface.folder import (
    UnsupportedError,
    read_config,
    read_tensors,
    write_folder,
)

READERS = {  # model_type → arguments of GPT, weights by our names
    "gpt2": (gpt2.read_arguments, gpt2.read_weights),
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3"),
        (rotary.read_llama_arguments, rotary.read_llama_weights),
    ),
    "gpt_neox": (rotary.read_neox_arguments, rotary.read_neox_weights),
}


def load_gpt(folder: str | Path) -> GPT:
    """Return the GPT of a Hugging Face folder.

    Args:
        folder: Has config.json and model.safetensors, or the index of a sharded one.

    Raises:
        OSError: If a file is missing.
        UnsupportedError: If it is another architecture, or has an option that GPT does not have.
        ValueError: If weights do not fit.
    """
    folder = Path(folder)
    config = read_config(folder)
    kind = config.get("model_type")
    if kind not in READERS:
        raise UnsupportedError(f"{folder} holds a {kind!r}; supported: {', '.join(READERS)}")
    read_arguments, read_weights = READERS[kind]
    try:
        with torch.device("meta"):  # the weights of the folder take the place of random ones
            net = GPT(**read_arguments(folder, config))
    except KeyError as error:
        raise ValueError(f"{folder}: {error} is missing in config.json") from error
    weights = read_weights(folder, read_tensors(folder), net)
    for name, parameter in net.state_dict().items():
        if weights[name].shape != parameter.shape:
            found, expected = tuple(weights[name].shape), tuple(parameter.shape)
            raise ValueError(f"{folder}: {name} has shape {found}, expected {expected}")
    weights = {name: weight.float().contiguous() for name, weight in weights.items()}
    net.load_state_dict(weights, assign=True)
    return net


def save_gpt(net: GPT, folder: str | Path) -> None:
    """Write a folder that `AutoModelForCausalLM.from_pretrained` opens.

    Args:
        net: With learned positions it becomes a GPT-2, with rotary ones a Llama, Qwen2, Qwen3 or
            GPT-NeoX.
        folder: Created where it does not exist.

    Raises:
        ValueError: If none of these architectures has the net's options.
    """
    full_heads = net.num_kv_heads in (None, net.num_heads)
    plain = net.head_dim in (None, net.dim // net.num_heads) and not net.qk_norm
    plain = plain and net.qkv_bias in (None, net.bias) and net.rope_scaling is None
    if net.positions == "learned":
        tensors, config = gpt2.write_weights(net)
    elif net.norm == "rms" and net.activation == "swiglu" and not net.bias:
        tensors, config = rotary.write_llama_weights(net)
    elif net.norm == "layer" and net.activation in ("gelu", "gelu_tanh") and full_heads and plain:
        tensors, config = rotary.write_neox_weights(net)
    else:
        options = ("norm", "activation", "bias", "num_kv_heads")
        found = ", ".join(f"{name}={getattr(net, name)!r}" for name in options)
        raise ValueError(
            f"cannot export a GPT with rotary positions and {found}; supported are Llama (norm: "
            "rms, activation: swiglu, bias: false) and GPT-NeoX (norm: layer, activation: gelu, "
            "as many key/value heads as heads)"
        )
    write_folder(folder, tensors, config)
