"""BERT folders of Hugging Face, read and written: `config.json` and safetensors, the same logits.

Devlin et al. 2019, the names of `transformers`' BertForMaskedLM and BertForSequenceClassification;
a bare BertModel is read, too. Queries, keys and values are three matrices there and one here.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from modules.nets.huggingface.gpt2 import read_tensors

if TYPE_CHECKING:
    from modules.nets.bert import BertClassifier, BertMLM

# What a config.json leaves out has the value that it has in BERT-base.
BERT_SIZES = {
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_size": 768,
    "type_vocab_size": 2,
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


def their_names(num_layers: int) -> dict[str, tuple[str, ...]]:
    """The name of every weight: ours → theirs, which are joined along the first dimension."""
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


def find_folder(name: str, data_dir: str | Path) -> Path:
    """A folder, looked for as it is named and then among the data.

    Raises:
        ValueError: there is none, or it has no config.json.
    """
    places = [Path(name), Path(data_dir, name)]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise ValueError(
            f"there is no folder {name} with a pretrained BERT, neither here in {Path.cwd()} nor "
            f"in the data folder {Path(data_dir).resolve()}: nothing is downloaded, put it there"
        )
    return folder


def sizes_of(folder: Path) -> dict[str, int]:
    """What a folder's net was built with, by our names.

    Raises:
        ValueError: no BERT, or one with an option that ours lacks.
    """
    path = folder / "config.json"
    try:
        config = BERT_SIZES | json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{folder} is no Hugging Face folder: config.json: {str(error).splitlines()[0]}"
        ) from error
    if config.get("model_type") != "bert":
        raise ValueError(f"{folder} holds a {config.get('model_type')!r}; only 'bert' can be read")
    for option, ours in {
        "intermediate_size": 4 * config["hidden_size"],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "add_cross_attention": False,
        "tie_word_embeddings": True,
    }.items():
        if config.get(option, ours) != ours:
            raise ValueError(f"{folder}: our BERT lacks the option {option}={config[option]!r}")
    return {ours: int(config[theirs]) for ours, theirs in SIZES.items()}


def weights_of(folder: Path, num_layers: int) -> dict[str, Tensor]:
    """A folder's weights by our names: those of the encoder, and of the heads that it has.

    Raises:
        ValueError: a file is missing or damaged.
    """
    try:
        found = read_tensors(folder)
    except (OSError, LookupError, ValueError, SafetensorError) as error:
        raise ValueError(f"{folder}: {error}") from error
    theirs = {}
    for name, tensor in found.items():
        # Old folders name the weights of norms as TensorFlow did, a bare BertModel has no prefix.
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        if name.startswith(("embeddings.", "encoder.", "pooler.")):
            name = f"bert.{name}"
        theirs[name] = tensor
    return {
        ours: torch.cat([theirs[name] for name in names])
        for ours, names in their_names(num_layers).items()
        if all(name in theirs for name in names)
    }


def save_bert(
    net: "BertMLM | BertClassifier", folder: str | Path, class_names: list[str] | None = None
) -> None:
    """Writes a folder that `AutoModelForMaskedLM`, or …ForSequenceClassification, opens.

    Args:
        net: a BertMLM or BertClassifier; `transformers` then gives the same logits.
        folder: is made where it does not exist.
        class_names: names of a classifier's classes.
    """
    theirs: dict[str, Tensor] = {}
    ours = net.state_dict()
    for name, parts in their_names(net.num_layers).items():
        if name in ours:
            for part, weight in zip(parts, ours[name].chunk(len(parts)), strict=True):
                theirs[part] = weight.detach().cpu().clone(memory_format=torch.contiguous_format)
    config: dict[str, Any] = {
        "architectures": ["BertForMaskedLM"],
        "model_type": "bert",
        **{their: getattr(net, our) for our, their in SIZES.items()},
        "type_vocab_size": 2,
        "intermediate_size": 4 * net.dim,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": net.dropout,
        "attention_probs_dropout_prob": net.dropout,
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
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(theirs, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
