"""Tiny random models of transformers, as folders, with a tokenizer."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from datamodules.text.tokenizers import train_bpe
from preprocessing.chat import CHATML

VOCAB_SIZE = 64
WORDS = ("good", "bad", "film", "the", "a", "very", "is", "was")
SIZES = {"vocab_size": VOCAB_SIZE, "hidden_size": 16, "intermediate_size": 24, "pad_token_id": 0}
LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 32}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {**SIZES, **LAYERS},
    "roberta": {**SIZES, **LAYERS, "type_vocab_size": 1, "pad_token_id": 1},
    "distilbert": {
        "vocab_size": VOCAB_SIZE,
        "dim": 16,
        "hidden_dim": 24,
        "n_layers": 2,
        "n_heads": 2,
        "max_position_embeddings": 32,
        "pad_token_id": 0,
    },
    "gpt2": {
        "vocab_size": VOCAB_SIZE,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 32,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
    "llama": {**SIZES, **LAYERS, "num_key_value_heads": 1},
    "mistral": {
        **SIZES,
        **LAYERS,
        "num_key_value_heads": 1,
        "head_dim": 12,
        "sliding_window": None,
    },
    "qwen2": {**SIZES, **LAYERS, "num_key_value_heads": 1},
    "qwen3": {**SIZES, **LAYERS, "num_key_value_heads": 1, "head_dim": 12},
}
ENCODERS = ("bert", "roberta", "distilbert")
DECODERS = ("gpt2", "llama", "mistral", "qwen2", "qwen3")


def make_model(kind: str, auto_class: str, seed: int = 0, **options: Any) -> Any:
    """Return a tiny random model in eval mode; its weights are large enough to matter."""
    config = transformers.AutoConfig.for_model(kind, **CONFIGS[kind] | options)
    torch.manual_seed(seed)
    model = getattr(transformers, auto_class).from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def make_tokenizer(start: str = "[CLS]", end: str = "[SEP]") -> Tokenizer:
    """Return a word tokenizer that encodes texts and pairs as BERT's does."""
    special = ["[PAD]", "[UNK]", start, end, "[MASK]"]
    vocab = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} $B:1 {end}:1",
        special_tokens=[(name, vocab[name]) for name in (start, end)],
    )
    return tokenizer


def save_model(folder: Path, model: Any, tokenizer: Tokenizer | None = None) -> Path:
    """Write the folder of a model and its tokenizer."""
    model.save_pretrained(folder)
    (tokenizer or make_tokenizer()).save(str(folder / "tokenizer.json"))
    return folder


def make_chat_folder(folder: Path, kind: str = "llama", **options) -> Path:
    """Write a tiny model with a chat template; its end-of-sequence token is <|im_end|>."""
    tokenizer = train_bpe(
        ["What is the capital of France?" * 5], 300, ["<|im_start|>", "<|im_end|>"]
    )
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    sizes = {"vocab_size": 300, "max_position_embeddings": 256, "eos_token_id": 1}
    theirs = make_model(kind, "AutoModelForCausalLM", **sizes | options)
    theirs.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(CHATML)
    return folder


def make_gguf(path: Path, type: GGMLQuantizationType, architecture: str = "llama") -> Path:
    """Write a GGUF file with one weight of a type of quantization."""
    writer = GGUFWriter(path, architecture)
    block = torch.zeros(1, GGML_QUANT_SIZES[type][1], dtype=torch.uint8).numpy()
    writer.add_tensor("token_embd.weight", block, raw_dtype=type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
