"""LightningModule for sentence embeddings: one vector per text, similar for similar texts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from engine.errors import UserError
from engine.eval_mode import eval_mode
from modules.inference.pretrained import read_tokenizer
from modules.nets import PretrainedEncoder
from modules.nets.layers.pooling import masked_max, masked_mean
from modules.training.hyperparameters import save_arguments
from preprocessing.model_folders import find_source
from preprocessing.texts import texts_to_inputs, with_truncation_and_padding

Pooling = Literal["mean", "cls", "max"]


class SentenceEncoder(L.LightningModule):
    """Embed texts with an encoder whose `forward(inputs)` returns hidden states (B, T, D).

    The hidden states of a text's tokens are pooled to one vector (Reimers & Gurevych 2019,
    Sentence-BERT). The dot product of two normalized vectors is their cosine similarity. It has no
    training_step: `from_pretrained` opens a trained encoder.

    Args:
        net: The encoder.
        pooling: `mean` over the tokens, the vector of the first token (`cls`), or `max` over the
            tokens.
        normalize: Divide each vector by its Euclidean norm.
        tokenizer: A tokenizer as JSON, with truncation and padding. Linked from the data.
    """

    def __init__(
        self,
        net: nn.Module,
        pooling: Pooling = "mean",
        normalize: bool = True,
        tokenizer: str | None = None,
    ) -> None:
        super().__init__()
        save_arguments(self)
        self.net = net
        self.pooling = pooling
        self.normalize = normalize
        self.tokenizer = None if tokenizer is None else Tokenizer.from_str(tokenizer)

    @classmethod
    def from_pretrained(
        cls,
        source: str,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        context: int | None = None,
        data_dir: str | Path = "data",
    ) -> "SentenceEncoder":
        """Return a pretrained encoder with its tokenizer, in eval mode on the CPU.

        Args:
            source: Folder, `package:NAME` or hub name; see preprocessing/model_folders.py.
            pooling: By default as the files of sentence-transformers say, where the folder has
                them, else `mean`.
            normalize: The same; else True.
            context: Maximum number of tokens of a text; the same, else that of the network.
            data_dir: Folder in which relative sources are found, too.

        Raises:
            UserError: If the source cannot be found or read.
        """
        try:
            folder = find_source(source, data_dir)
            net = PretrainedEncoder(source, data_dir=data_dir)
        except ValueError as error:
            raise UserError(f"SentenceEncoder: {error}.") from error
        saved = sentence_transformers_settings(folder)
        context = context or min(net.context or 512, saved.get("context") or 512)
        tokenizer = with_truncation_and_padding(read_tokenizer(folder), context)
        return cls(
            net,
            pooling or saved.get("pooling", "mean"),
            saved.get("normalize", True) if normalize is None else normalize,
            tokenizer,
        ).eval()

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return one vector per text, (B, D)."""
        hidden = self.net(inputs).float()  # (B, T, D)
        mask = inputs["attention_mask"].bool()  # (B, T)
        if self.pooling == "cls":
            vectors = hidden[:, 0]  # (B, D)
        else:
            pool = masked_mean if self.pooling == "mean" else masked_max
            vectors = pool(hidden, mask)  # (B, D)
        return F.normalize(vectors, dim=-1) if self.normalize else vectors

    @torch.inference_mode()
    def embed(self, texts: str | Sequence[str], batch_size: int = 64) -> Tensor:
        """Return one vector per raw text, (N, D), float32 on the CPU.

        Texts of similar length share a batch. A text is truncated to the context.

        Args:
            texts: One text or several.
            batch_size: Texts per batch.

        Raises:
            UserError: If there is no text, or the task has no tokenizer.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        if self.tokenizer is None:
            raise UserError("this SentenceEncoder was made without `tokenizer`.")
        if not texts:
            raise UserError("there is nothing to embed: pass at least one text.")
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        parts = []
        with eval_mode(self.net):
            for start in range(0, len(texts), batch_size):
                batch = [texts[row] for row in order[start : start + batch_size]]
                inputs = texts_to_inputs(batch, self.tokenizer)
                parts.append(self({n: t.to(self.device) for n, t in inputs.items()}).cpu())
        vectors = torch.cat(parts)  # (N, D)
        return torch.empty_like(vectors).index_copy_(0, torch.tensor(order), vectors)


def sentence_transformers_settings(folder: Path) -> dict[str, Any]:
    """Return `pooling`, `normalize` and `context` as far as files of sentence-transformers say.

    Raises:
        UserError: If the folder pools in a way that SentenceEncoder does not.
    """

    def read(name: str) -> Any:
        path = folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    settings: dict[str, Any] = {}
    if limits := read("sentence_bert_config.json"):
        settings["context"] = limits.get("max_seq_length")
    for module in read("modules.json") or ():
        kind = module["type"].rpartition(".")[2]
        if kind == "Pooling":
            modes = read(f"{module['path']}/config.json")
            names = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}
            found = [name for name, mode in names.items() if modes.get(f"pooling_mode_{mode}")]
            if len(found) != 1:
                raise UserError(f"{folder}: only mean, cls or max pooling is supported.")
            settings |= {"pooling": found[0], "normalize": False}
        elif kind == "Normalize":
            settings["normalize"] = True
        elif kind != "Transformer":
            raise UserError(f"{folder}: the module {kind} is not supported.")
    return settings
