"""Write a checkpoint in a form that other programs read.

    python export.py --checkpoint runs/…/best.ckpt --format safetensors --output weights/
    python export.py --checkpoint runs/…/best.ckpt --format huggingface --output my-gpt/
    python export.py --checkpoint runs/…/best.ckpt --format checkpoint --output one/

safetensors: the weights of the net of any task, and its hyper-parameters as JSON in the metadata.
huggingface: a GPT (as GPT-2; with rotary positions as GPT-NeoX or Llama) or a BERT, with its
tokenizer, as `AutoModelForCausalLM.from_pretrained` (for a BERT …ForMaskedLM or
…ForSequenceClassification) and `AutoTokenizer.from_pretrained` open it: the same logits, the same
text.
word2vec: the vectors of WordVectors as `vectors.txt`, which gensim's
`KeyedVectors.load_word2vec_format` opens, the most frequent word first.
checkpoint: one file with weights and hyper-parameters, for train.py test, --init_from, generate.py.

A checkpoint may be a folder that several processes wrote, by engine.distributed.ModelParallel or by DeepSpeed
(the latter is read with pickle: from those whom you trust).
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from safetensors.torch import save_file
from torch import Tensor

from engine.checkpoint.reading import load_task, read_checkpoint
from engine.checkpoint.sharded import KEYS, as_single_file
from engine.errors import exit_on_user_error
from modules import Classifier, MaskedLanguageModel, WordVectors
from modules.inference.pretrained import open_language_model, save_tokenizer
from modules.nets.bert import BertClassifier, BertMLM
from modules.nets.gpt import GPT
from modules.nets.huggingface.bert import save_bert
from modules.nets.huggingface.gpt import save_gpt


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("export.py", description=__doc__, allow_abbrev=False)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    add = made.add_argument
    add("--checkpoint", type=Path, required=True, metavar="PATH", help="a .ckpt file or folder")
    add("--format", required=True, choices=list(FORMATS), help="what to write")
    add("--output", type=Path, required=True, metavar="FOLDER", help="a folder, new or empty")
    return made


def main(args: list[str] | None = None) -> Path:
    """Run the command line; the same from Python: `main(["--checkpoint", …])`.

    Args:
        args: Arguments; those of the process by default.

    Returns:
        The folder that was written.

    Raises:
        SystemExit: With code 2 after a user's mistake, told in one sentence on stderr.
    """
    options = parser().parse_args(args)
    folder: Path = options.output
    with exit_on_user_error("export.py"):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise MisconfigurationException(
                f"{folder} is there already and is no empty folder: name a new one, so that "
                "nothing is overwritten or mixed."
            )
        try:
            FORMATS[options.format](options.checkpoint, folder)
        except OSError as error:
            raise MisconfigurationException(f"{folder} can't be written: {error}.") from error
    print(f"written: {' '.join(str(path) for path in sorted(folder.iterdir()))}")
    return folder


def export_safetensors(checkpoint: Path, folder: Path) -> None:
    content = read_checkpoint(checkpoint)
    weights: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}  # a second name of a weight → its first
    names: dict[tuple, str] = {}
    for name, tensor in content["state_dict"].items():
        if not name.startswith("net."):  # what a task counts is no weight
            continue
        name = name.removeprefix("net.")
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        first = names.setdefault(place, name) if tensor.numel() else name
        if first != name:
            aliases[name] = first
        else:
            weights[name] = tensor.clone(memory_format=torch.contiguous_format)
    if not weights:
        raise MisconfigurationException(f"{checkpoint} holds no net: no weight is named net.….")
    hyper_parameters = json.dumps(content.get("hyper_parameters", {}), ensure_ascii=False)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        weights,
        folder / "model.safetensors",
        metadata={"format": "pt", "hyper_parameters": hyper_parameters} | aliases,
    )


def export_checkpoint(checkpoint: Path, folder: Path) -> None:
    content = read_checkpoint(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({key: content[key] for key in KEYS if key in content}, folder / "model.ckpt")


def export_huggingface(checkpoint: Path, folder: Path) -> None:
    with as_single_file(checkpoint) as file:
        task = read_checkpoint(file).get("hyper_parameters", {}).get("_class_path", "")
        kind = BERT_TASKS.get(task.rpartition(".")[2])
        model = load_task(file, kind, "a BERT's config") if kind else open_language_model(file)
    net: Any = model.net
    try:
        if isinstance(net, GPT):
            assert model.tokenizer is not None  # open_language_model sees to it
            save_gpt(net, folder)
            save_tokenizer(model.tokenizer, folder, net.context)
            return
        if isinstance(net, BertMLM | BertClassifier):
            if model.tokenizer is None:
                raise MisconfigurationException(
                    f"{checkpoint} holds no tokenizer, and a folder without one reads no text: "
                    "take --format safetensors."
                )
            save_bert(net, folder, getattr(model, "class_names", None))
            save_tokenizer(model.tokenizer, folder, net.context)
            return
    except ValueError as error:
        raise MisconfigurationException(f"{error}; take --format safetensors.") from error
    raise MisconfigurationException(
        f"{checkpoint} holds the net {type(net).__name__}, and --format huggingface writes a "
        "modules.nets.GPT, BertMLM or BertClassifier only: take --format safetensors."
    )


def export_word2vec(checkpoint: Path, folder: Path) -> None:
    with as_single_file(checkpoint) as file:
        task = load_task(file, WordVectors, "a config of word vectors, configs/imdb/skip_gram.yaml")
    if task.tokenizer is None:
        raise MisconfigurationException(
            f"{checkpoint} holds no vocabulary: WordVectors(…, tokenizer=…) was left out when it "
            "was trained, so it has vectors but no words; take --format safetensors."
        )
    vectors = task.net.vectors().float()  # type: ignore[operator]
    rows = [(word, row) for word, row in zip(task.words, vectors.tolist(), strict=True) if word]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "vectors.txt").open("w", encoding="utf-8") as file:
        file.write(f"{len(rows)} {vectors.shape[1]}\n")
        for word, row in rows:  # nine digits tell any two float32 apart
            file.write(f"{word} {' '.join(format(number, '.9g') for number in row)}\n")


# Tasks whose nets may be BERTs; all else is taken for a language model.
BERT_TASKS: dict[str, Any] = {
    "Classifier": Classifier,
    "MaskedLanguageModel": MaskedLanguageModel,
}
FORMATS = {
    "safetensors": export_safetensors,
    "huggingface": export_huggingface,
    "word2vec": export_word2vec,
    "checkpoint": export_checkpoint,
}


if __name__ == "__main__":
    main()
