"""GPT-2 folders of Hugging Face, read and written: `config.json` and safetensors, the same logits.

Radford et al. 2019, the names of `transformers`' GPT2LMHeadModel. Its linear layers are stored
transposed (as "Conv1D": input × output), its feed-forward width and its norms are ours.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from modules.nets.gpt import GPT, NORM_EPS

# What a config.json leaves out has the value that it has in the smallest GPT-2.
GPT2_SIZES = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12}

ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}  # to ours

NAMES = {  # ours → theirs; {} is the number of the block
    "token_embedding.weight": "wte.weight",
    "position_embedding.weight": "wpe.weight",
    "blocks.{}.norm_1": "h.{}.ln_1",
    "blocks.{}.attention.qkv": "h.{}.attn.c_attn",
    "blocks.{}.attention.proj": "h.{}.attn.c_proj",
    "blocks.{}.norm_2": "h.{}.ln_2",
    "blocks.{}.mlp.up": "h.{}.mlp.c_fc",
    "blocks.{}.mlp.proj": "h.{}.mlp.c_proj",
    "last_norm": "ln_f",
}


def their_names(num_layers: int) -> dict[str, str]:
    """The name of every weight and bias: ours → theirs, without the prefix "transformer."."""
    names = {}
    for ours, theirs in NAMES.items():
        for number in range(num_layers if "{}" in ours else 1):
            for kind in ("",) if ours.endswith(".weight") else (".weight", ".bias"):
                names[ours.format(number) + kind] = theirs.format(number) + kind
    return names


def is_transposed(name: str) -> bool:
    return name.endswith(".weight") and any(part in name for part in (".qkv.", ".proj.", ".up."))


def load_gpt2(folder: str | Path) -> GPT:
    """The GPT of a Hugging Face GPT-2 folder.

    Args:
        folder: holds `config.json` and `model.safetensors`, or the index of a sharded one.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: another architecture, an option that our GPT lacks, or weights that do not fit.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is no Hugging Face folder: it has no config.json")
    config = GPT2_SIZES | json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") != "gpt2":
        raise ValueError(f"{folder} holds a {config.get('model_type')!r}; only 'gpt2' can be read")
    dim = config["n_embd"]
    for option, ours in {
        "n_inner": (None, 4 * dim),
        "activation_function": tuple(ACTIVATIONS),
        "layer_norm_epsilon": (NORM_EPS,),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    }.items():
        if config.get(option, ours[0]) not in ours:
            raise ValueError(f"{folder}: our GPT lacks the option {option}={config[option]!r}")
    net = GPT(
        vocab_size=config["vocab_size"],
        context=config["n_positions"],
        num_layers=config["n_layer"],
        num_heads=config["n_head"],
        dim=dim,
        dropout=config.get("resid_pdrop", 0.1),
        activation=ACTIVATIONS[config.get("activation_function", "gelu_new")],
        tie_embeddings=config.get("tie_word_embeddings", True),
    )
    theirs = {
        name.removeprefix("transformer."): tensor for name, tensor in read_tensors(folder).items()
    }
    names = their_names(net.num_layers)
    if net.head is not None:
        names["head.weight"] = "lm_head.weight"
    missing = sorted(set(names.values()) - set(theirs))
    if missing:
        raise ValueError(f"{folder} lacks {len(missing)} weights, among them {missing[0]}")
    weights = {
        ours: theirs[name].T if is_transposed(ours) else theirs[name]
        for ours, name in names.items()
    }
    for name, parameter in net.state_dict().items():
        if weights[name].shape != parameter.shape:
            ours_shape, their_shape = tuple(parameter.shape), tuple(weights[name].shape)
            raise ValueError(f"{folder}: {name} has the shape {their_shape}, not {ours_shape}")
    net.load_state_dict(weights)
    return net


def read_tensors(folder: Path) -> dict[str, Tensor]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    else:
        shards = {"model.safetensors"}
    tensors: dict[str, Tensor] = {}
    for shard in sorted(shards):
        if not (folder / shard).is_file():
            raise FileNotFoundError(f"{folder} lacks {shard}; only safetensors weights can be read")
        tensors |= load_file(folder / shard)
    return tensors


def save_gpt2(net: GPT, folder: str | Path) -> None:
    """Writes a folder that `AutoModelForCausalLM.from_pretrained` opens, with the same logits.

    Args:
        net: a GPT of GPT-2's form; one without biases gets biases of zero.
        folder: is made where it does not exist.

    Raises:
        ValueError: an option of the net that GPT-2 does not have.
    """
    foreign = [
        f"{option}={getattr(net, option)!r}"
        for option, allowed in {
            "positions": ("learned",),
            "norm": ("layer",),
            "activation": tuple(ACTIVATIONS.values()),
            "num_kv_heads": (None, net.num_heads),
        }.items()
        if getattr(net, option) not in allowed
    ]
    if foreign:
        raise ValueError(f"GPT-2 does not have {', '.join(foreign)}: this net cannot be written so")
    ours = net.state_dict()
    theirs = {}
    for name, their_name in their_names(net.num_layers).items():
        if name in ours:
            weight = ours[name].T if is_transposed(name) else ours[name]
        else:  # built with bias=False
            weight = torch.zeros(len(ours[name.removesuffix("bias") + "weight"]))
        theirs["transformer." + their_name] = weight.detach().cpu().contiguous()
    if net.head is not None:
        theirs["lm_head.weight"] = net.head.weight.detach().cpu().contiguous()
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": net.vocab_size,
        "n_positions": net.context,
        "n_ctx": net.context,
        "n_embd": net.dim,
        "n_layer": net.num_layers,
        "n_head": net.num_heads,
        "n_inner": None,
        "activation_function": {ours: name for name, ours in reversed(ACTIVATIONS.items())}[
            net.activation
        ],
        "layer_norm_epsilon": NORM_EPS,
        "resid_pdrop": net.dropout,
        "embd_pdrop": net.dropout,
        "attn_pdrop": net.dropout,
        "tie_word_embeddings": net.tie_embeddings,
        "bos_token_id": None,  # GPT-2's own, 50256, would lie outside a smaller vocabulary
        "eos_token_id": None,
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(theirs, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
