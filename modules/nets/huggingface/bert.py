"""Read and write BERT folders of Hugging Face, with equal logits.

Devlin et al. 2019; the names are those of `transformers`' BertForMaskedLM and
BertForSequenceClassification. A bare BertModel is read, too. Query, key and value are three
matrices there and one here.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.nets.huggingface.folder import check_options, read_config, read_tensors, write_folder

# The sizes of BERT-base, which apply where config.json leaves one out.
DEFAULTS = {
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_size": 768,
}
SIZES = {  # ours → theirs
    "vocab_size": "vocab_size",
    "context": "max_position_embeddings",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "dim": "hidden_size",
}
EMBEDDINGS = {  # ours, in "encoder." → theirs, in "bert.embeddings."
    "token_embedding.weight": "word_embeddings.weight",
    "position_embedding.weight": "position_embeddings.weight",
    "segment_embedding.weight": "token_type_embeddings.weight",
    "norm.weight": "LayerNorm.weight",
    "norm.bias": "LayerNorm.bias",
}
LAYERS = {  # ours, in "encoder.blocks.<number>." → theirs, in "bert.encoder.layer.<number>."
    "attention.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.proj": ("attention.output.dense",),
    "norm_1": ("attention.output.LayerNorm",),
    "mlp.up": ("intermediate.dense",),
    "mlp.proj": ("output.dense",),
    "norm_2": ("output.LayerNorm",),
}
HEADS = {  # ours → theirs
    "pooler.weight": "bert.pooler.dense.weight",
    "pooler.bias": "bert.pooler.dense.bias",
    "head.weight": "classifier.weight",
    "head.bias": "classifier.bias",
    "transform.weight": "cls.predictions.transform.dense.weight",
    "transform.bias": "cls.predictions.transform.dense.bias",
    "transform_norm.weight": "cls.predictions.transform.LayerNorm.weight",
    "transform_norm.bias": "cls.predictions.transform.LayerNorm.bias",
    "decoder_bias": "cls.predictions.bias",
}


def weight_names(num_layers: int) -> dict[str, tuple[str, ...]]:
    """Map the name of each weight, ours → theirs (concatenated along the first dimension)."""
    names: dict[str, tuple[str, ...]] = {
        f"encoder.{ours}": (f"bert.embeddings.{theirs}",) for ours, theirs in EMBEDDINGS.items()
    }
    for number in range(num_layers):
        for ours, parts in LAYERS.items():
            for kind in ("weight", "bias"):
                names[f"encoder.blocks.{number}.{ours}.{kind}"] = tuple(
                    f"bert.encoder.layer.{number}.{part}.{kind}" for part in parts
                )
    return names | {ours: (theirs,) for ours, theirs in HEADS.items()}


def load_bert_weights(net: Any, pretrained: str, data_dir: str | Path) -> None:
    """Initialize a BertMLM or BertClassifier from a folder; warn of the weights it does not have.

    Args:
        net: The network; its sizes must be those of the folder, its context at most as long.
        pretrained: The folder, relative to the working directory or to data_dir.
        data_dir: Folder of the data sets.

    Raises:
        ValueError: If the folder cannot be read, or has other sizes than the network.
    """
    name = type(net).__name__
    folder = find_folder(pretrained, data_dir)
    try:
        _check_sizes(net, folder, read_sizes(folder))
        found = read_weights(folder, net.num_layers)
    except OSError as error:
        raise ValueError(str(error)) from error
    positions = "encoder.position_embedding.weight"
    if positions in found:
        found[positions] = found[positions][: net.context]
    ours = net.state_dict()
    fitting = {n: w for n, w in found.items() if n in ours and w.shape == ours[n].shape}
    if any(f"head.{part}" not in fitting for part in ("weight", "bias")):
        fitting = {n: w for n, w in fitting.items() if not n.startswith("head.")}
    if missing := [n for n in ours if n.startswith("encoder.") and n not in fitting]:
        raise ValueError(f"{name}: {folder} has no {missing[0]} of the expected shape.")
    net.load_state_dict(fitting, strict=False)
    if new := [n for n in ours if n not in fitting]:
        warnings.warn(
            f"{name}: loaded {len(fitting)} of {len(ours)} weights from {folder}; newly "
            f"initialized: {', '.join(new)}.",
            stacklevel=2,
        )


def _check_sizes(net: Any, folder: Path, sizes: dict[str, int]) -> None:
    name = type(net).__name__
    if sizes["vocab_size"] != (vocab_size := net.vocab_size):
        raise ValueError(
            f"{name}: {folder} has {sizes['vocab_size']:,} tokens, the data have {vocab_size:,}; "
            f"use its tokenizer: --data.tokenizer {folder}."
        )
    if sizes["context"] < (context := net.context):
        raise ValueError(
            f"{name}: the context of {folder} is {sizes['context']} tokens, got {context}; "
            f"set --data.context {sizes['context']} or less."
        )
    flags = [
        f"--model.net.{size} {sizes[size]}"
        for size in ("num_layers", "num_heads", "dim")
        if getattr(net, size) != sizes[size]
    ]
    if flags:
        raise ValueError(f"{name}: {folder} has other sizes; set {' '.join(flags)}.")


def find_folder(name: str, data_dir: str | Path) -> Path:
    """Return the folder of this name in the working directory or in data_dir.

    Raises:
        ValueError: If there is none.
    """
    for folder in (Path(name), Path(data_dir, name)):
        if folder.is_dir():
            return folder
    raise ValueError(
        f"no folder {name} with a pretrained BERT, neither in {Path.cwd()} nor in the data folder "
        f"{Path(data_dir).resolve()}; it is not downloaded, put it there"
    )


def read_sizes(folder: Path) -> dict[str, int]:
    """Return the constructor arguments of a folder's network, by our names.

    Raises:
        OSError: If there is no config.json.
        ValueError: If it is not a BERT, or has an option that ours does not support.
    """
    config = DEFAULTS | read_config(folder)
    if config.get("model_type") != "bert":
        raise ValueError(f"{folder} holds a {config.get('model_type')!r}; only 'bert' can be read")
    supported = {
        "intermediate_size": (4 * config["hidden_size"],),
        "hidden_act": ("gelu",),
        "layer_norm_eps": (1e-12,),
        "type_vocab_size": (2,),
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
        "tie_word_embeddings": (True,),
    }
    check_options(folder, config, supported)
    return {ours: int(config[theirs]) for ours, theirs in SIZES.items()}


def read_weights(folder: Path, num_layers: int) -> dict[str, Tensor]:
    """Return a folder's weights by our names: the encoder's, and those of the heads it has.

    Raises:
        OSError: If a file is missing.
        ValueError: If a file is damaged.
    """
    theirs = {}
    for name, tensor in read_tensors(folder).items():
        # Old folders use TensorFlow's names for norms; a bare BertModel has no prefix.
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        if name.startswith(("embeddings.", "encoder.", "pooler.")):
            name = f"bert.{name}"
        theirs[name] = tensor
    return {
        ours: torch.cat([theirs[name] for name in names])
        for ours, names in weight_names(num_layers).items()
        if all(name in theirs for name in names)
    }


def save_bert(net: Any, folder: str | Path, class_names: list[str] | None = None) -> None:
    """Write a folder that AutoModelForMaskedLM or …ForSequenceClassification opens.

    Args:
        net: A BertMLM or BertClassifier; `transformers` computes equal logits.
        folder: Created where it does not exist.
        class_names: Names of a classifier's classes.
    """
    ours = net.state_dict()
    dropout = net.dropout
    tensors = {
        part: weight
        for name, parts in weight_names(net.num_layers).items()
        if name in ours
        for part, weight in zip(parts, ours[name].chunk(len(parts)), strict=True)
    }
    config: dict[str, Any] = {
        "architectures": ["BertForMaskedLM"],
        "model_type": "bert",
        **{theirs: getattr(net, ours) for ours, theirs in SIZES.items()},
        "type_vocab_size": 2,
        "intermediate_size": 4 * net.dim,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "tie_word_embeddings": True,
    }
    if "head.bias" in ours:
        labels = class_names or [f"LABEL_{number}" for number in range(len(ours["head.bias"]))]
        config |= {
            "architectures": ["BertForSequenceClassification"],
            "problem_type": "single_label_classification",
            "id2label": dict(enumerate(labels)),
            "label2id": {label: number for number, label in enumerate(labels)},
        }
    write_folder(folder, tensors, config)
