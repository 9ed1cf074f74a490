"""Open a language model from a checkpoint or a pretrained model; save its tokenizer."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from engine.checkpoint.reading import load_task
from engine.checkpoint.sharded import is_sharded
from engine.errors import UserError
from modules.language_model import LanguageModel
from modules.nets.gpt import GPT
from modules.nets.huggingface.folder import UnsupportedError
from modules.nets.huggingface.gpt import load_gpt
from modules.nets.huggingface.pretrained import PretrainedCausalLM
from preprocessing.chat import read_chat_template
from preprocessing.model_folders import find_source, is_remote
from preprocessing.special_tokens import END_OF_TEXT, MASK, PAD, UNK, find_special_token

BERT_TOKENS = ("pad", "unk", "cls", "sep", "mask")


def open_language_model(path: str | Path, offload: bool = False) -> LanguageModel:
    """Return a LanguageModel in eval mode on the CPU.

    Args:
        path: A checkpoint file of a LanguageModel, a folder with config.json, model.safetensors and
            tokenizer.json (or vocab.json and merges.txt), or another source of
            preprocessing/model_folders.py. The network is a GPT where GPT has its architecture,
            else a PretrainedCausalLM; texts end at the model's end-of-sequence tokens.
        offload: Leave the weights of a folder in its files and read those of one block at a time,
            by a PretrainedCausalLM.

    Raises:
        UserError: If the path is something else or cannot be read, or a checkpoint is to be
            offloaded.
    """
    path = Path(path)
    if path.is_dir() and not is_sharded(path):
        return _from_folder(path, offload).eval()
    if (not path.exists() and is_remote(str(path))) or (path.is_file() and path.suffix == ".gguf"):
        try:
            return _from_folder(find_source(str(path)), offload).eval()
        except ValueError as error:
            raise UserError(f"{error}.") from error
    if offload:
        raise UserError(
            f"{path} is a checkpoint, whose weights cannot be offloaded: write a folder first, by "
            "export.py --format huggingface."
        )
    model = load_task(path, LanguageModel, "a language config, such as configs/shakespeare/*.yaml")
    if model.tokenizer is None:
        raise UserError(
            f"{path} contains no tokenizer, since it was trained without `tokenizer`: it takes "
            "tokens instead of text."
        )
    return model


def _from_folder(folder: Path, offload: bool) -> LanguageModel:
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} is neither a checkpoint nor a Hugging Face folder (it has no config.json); "
            "name a file, for example runs/…/checkpoints/best.ckpt."
        )
    net: GPT | PretrainedCausalLM
    try:
        try:
            net = PretrainedCausalLM(str(folder), offload=True) if offload else load_gpt(folder)
        except UnsupportedError:
            net = PretrainedCausalLM(str(folder))
        template = read_chat_template(folder)
    except (ValueError, TypeError, LookupError, OSError, SafetensorError) as error:
        named = "" if str(folder) in str(error) else f"{folder}: config.json or weights: "
        raise UserError(f"{named}{error}.") from error
    tokenizer = read_tokenizer(folder)
    if tokenizer.get_vocab_size() > net.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.get_vocab_size()} tokens, but the network "
            f"only {net.vocab_size}: they belong to different models."
        )
    model = LanguageModel(net, tokenizer=tokenizer.to_str(), chat_template=template)
    model.end_tokens = _end_tokens(folder)
    return model


def _end_tokens(folder: Path) -> frozenset[int]:
    """Return the end-of-sequence tokens of generation_config.json, else of config.json."""
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            found = json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token_id")
            if found is not None:
                return frozenset(found if isinstance(found, list) else [found])
    return frozenset()


def read_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a Hugging Face folder, from tokenizer.json or GPT-2's older files.

    Raises:
        UserError: If there is none or it cannot be read.
    """
    single, older = folder / "tokenizer.json", (folder / "vocab.json", folder / "merges.txt")
    try:
        if single.is_file():
            tokenizer = Tokenizer.from_file(str(single))
            tokenizer.no_truncation()
            tokenizer.no_padding()
            return tokenizer
        if all(path.is_file() for path in older):
            tokenizer = Tokenizer(models.BPE.from_file(*map(str, older)))
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            if tokenizer.token_to_id(END_OF_TEXT) is not None:
                tokenizer.add_special_tokens([END_OF_TEXT])
            return tokenizer
    except Exception as error:  # tokenizers raises no narrower type
        raise UserError(f"{folder}: cannot read the tokenizer: {error}.") from error
    raise UserError(
        f"{folder} has no tokenizer: neither tokenizer.json nor vocab.json and merges.txt exist."
    )


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int | None) -> None:
    """Write the files from which `AutoTokenizer.from_pretrained` loads the same tokenizer.

    `<|endoftext|>` becomes the beginning- and end-of-sequence token where the vocabulary has it,
    else these are the tokens of config.json; [PAD], [UNK], [CLS], [SEP] and [MASK], or the tokens
    of their roles in RoBERTa, get the same roles as in BERT.

    Args:
        tokenizer: A tokenizer; its truncation and padding are not saved.
        folder: Folder with the network's config.json, to which the ids of the tokens are added.
        context: Maximum number of tokens of the network; None: unlimited.
    """
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = _name_special_tokens(tokenizer, config)
    settings: dict[str, Any] = {
        # Otherwise "model_type": "gpt2" selects GPT-2's own tokenizer class.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,  # otherwise removes spaces before full stops
        **({} if context is None else {"model_max_length": context}),
        # BERT also takes token types; RoBERTa, which has one type only, does not need them.
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"]
        if (config.get("type_vocab_size") or 0) > 1
        else ["input_ids", "attention_mask"],
        **named,
    }
    if named:
        tokenizer.add_special_tokens(sorted(set(named.values())))
        for role in ("bos_token", "eos_token", "pad_token"):
            if role in named:
                config[f"{role}_id"] = tokenizer.token_to_id(named[role])
        _write_json(folder / "config.json", config)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", settings)


def _name_special_tokens(tokenizer: Tokenizer, config: dict[str, Any]) -> dict[str, str]:
    """Map the roles of special tokens, such as pad_token, to tokens of the vocabulary."""
    roles: dict[str, str | None] = {}
    for role in ("bos_token", "eos_token", "pad_token"):
        number = config.get(f"{role}_id")
        if isinstance(number, list):  # several end-of-sequence tokens
            number = number[0]
        roles[role] = None if number is None else tokenizer.id_to_token(number)
    if tokenizer.token_to_id(END_OF_TEXT) is not None and config.get("eos_token_id") is None:
        roles |= {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    if find_special_token(tokenizer, MASK):  # a vocabulary of a masked language model
        roles |= {
            f"{name}_token": find_special_token(tokenizer, f"[{name.upper()}]")
            for name in BERT_TOKENS
        }
    elif tokenizer.token_to_id(PAD) is not None:
        roles |= {"pad_token": PAD, "unk_token": find_special_token(tokenizer, UNK)}
    return {role: name for role, name in roles.items() if name is not None}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
