"""LightningModule for sentence embeddings: one vector per text, similar for similar texts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from engine.distributed.sharding import shard
from engine.errors import UserError
from engine.eval_mode import eval_mode
from modules.inference.pretrained import read_tokenizer, save_tokenizer
from modules.inference.raw_methods import batches_by_length
from modules.nets import PretrainedEncoder
from modules.nets.huggingface.pretrained import save_pretrained
from modules.nets.layers.pooling import masked_max, masked_mean
from modules.optim.schedules import configure
from modules.training.gradients import rescale_short_accumulation, should_log
from modules.training.hyperparameters import save_arguments
from modules.training.metrics import MeanLoss, TokenAccuracy, log_metrics, stage_metrics
from preprocessing.model_folders import find_source
from preprocessing.texts import texts_to_inputs, with_truncation_and_padding

Pooling = Literal["mean", "cls", "max"]


class SentenceEncoder(L.LightningModule):
    """Embed texts with an encoder whose `forward(inputs)` returns hidden states (B, T, D).

    The hidden states of a text's tokens are pooled to one vector (Reimers & Gurevych 2019,
    Sentence-BERT). The dot product of two normalized vectors is their cosine similarity.
    `from_pretrained` opens a trained encoder.

    Training is contrastive, on queries with a passage each (datamodules.QueryPassages). The loss is
    InfoNCE (van den Oord et al. 2018) in both directions: each query must find its passage among
    all passages of the batch, which include hard negatives, and each passage its query. Logs
    `<stage>/loss` (nats) and `<stage>/accuracy`, the fraction of queries whose passage is the
    nearest of the batch. With several processes each has its own passages.

    Args:
        net: The encoder.
        pooling: `mean` over the tokens, the vector of the first token (`cls`), or `max` over the
            tokens.
        normalize: Divide each vector by its Euclidean norm.
        tokenizer: A tokenizer as JSON, with truncation and padding. Linked from the data.
        optimizer: Optimizer class and arguments; AdamW with lr 0.001 by default.
        lr_scheduler: Schedule class and arguments; a constant learning rate by default.
        temperature: Divisor of the cosine similarities in the loss.
        dims: The loss is the mean over the first `dims` numbers of the vectors, which can then be
            truncated (Kusupati et al. 2022, Matryoshka); by default over all numbers only.
        chunk_size: Texts that are encoded at a time in training. Only the vectors are stored, and
            the activations are computed again in the backward pass: the memory is that of a chunk,
            the gradient that of the batch (Gao et al. 2021, gradient cache).
    """

    def __init__(
        self,
        net: nn.Module,
        pooling: Pooling = "mean",
        normalize: bool = True,
        tokenizer: str | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        temperature: float = 0.05,
        dims: list[int] | None = None,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise UserError(f"temperature must be above 0, got {temperature}.")
        if min([*(dims or ()), chunk_size or 1]) < 1:
            raise UserError("dims and chunk_size must be at least 1.")
        save_arguments(self)
        self.net = net
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.temperature = temperature
        self.dims = dims
        self.chunk_size = chunk_size
        self.metrics = stage_metrics({"loss": MeanLoss(), "accuracy": TokenAccuracy()})
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

    # Contrastive training.

    def encode(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the vectors of a training batch, (B, D), in chunks of similar length."""
        mask = inputs["attention_mask"]  # (B, T)
        if self.chunk_size is None:
            vectors: Tensor = self(inputs)
            return vectors
        lengths = mask.sum(dim=1)  # (B,)
        order = lengths.argsort(stable=True)
        parts = []
        for rows in order.split(self.chunk_size):
            width = int(lengths[rows].max())
            chunk = {name: tensor[rows, :width] for name, tensor in inputs.items()}
            parts.append(checkpoint(self.forward, chunk, use_reentrant=False))
        return torch.cat(parts)[order.argsort()]

    def _step(self, batch: tuple[dict[str, Tensor], Tensor], stage: str) -> Tensor:
        inputs, targets = batch  # the rows of the queries, then of the passages
        vectors = self.encode(inputs) if stage == "train" else self(inputs)  # (B, D)
        is_query = targets >= 0
        queries, passages = vectors[is_query], vectors[~is_query]  # (Q, D), (P, D)
        targets = targets[is_query]  # (Q,)
        losses = [
            info_nce(queries[:, :dim], passages[:, :dim], targets, self.temperature)
            for dim in self.dims or [vectors.shape[1]]
        ]
        loss = torch.stack(losses).mean()
        correct = ((queries @ passages.T).argmax(dim=1) == targets).sum()
        if stage != "train":
            metrics: Any = self.metrics[stage]
            metrics["loss"].update(loss * len(targets), len(targets))
            metrics["accuracy"].update(correct, len(targets))
        elif should_log(self):
            self.log("train/loss", loss.detach(), prog_bar=True, sync_dist=True)
            self.log("train/accuracy", correct / len(targets), sync_dist=True)
        return loss

    def training_step(self, batch: tuple[dict[str, Tensor], Tensor], batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        rescale_short_accumulation(self)

    def validation_step(self, batch: tuple[dict[str, Tensor], Tensor], batch_idx: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: tuple[dict[str, Tensor], Tensor], batch_idx: int) -> None:
        self._step(batch, "test")

    def on_validation_epoch_end(self) -> None:
        log_metrics(self, "val")

    def on_test_epoch_end(self) -> None:
        log_metrics(self, "test")

    def configure_model(self) -> None:
        shard(self)

    def configure_optimizers(self) -> Any:
        return configure(self, self.optimizer, self.lr_scheduler)

    # Inference from raw texts.

    @torch.inference_mode()
    def embed(
        self, texts: str | Sequence[str], batch_size: int = 64, dim: int | None = None
    ) -> Tensor:
        """Return one vector per raw text, (N, D), float32 on the CPU.

        Texts of similar length share a batch. A text is truncated to the context.

        Args:
            texts: One text or several.
            batch_size: Texts per batch.
            dim: Return only the first `dim` numbers of each vector, normalized again; for encoders
                that were trained so.

        Raises:
            UserError: If there is no text, or the task has no tokenizer.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        if self.tokenizer is None:
            raise UserError("this SentenceEncoder was made without `tokenizer`.")
        if not texts:
            raise UserError("there is nothing to embed: pass at least one text.")
        order, parts = [], []
        with eval_mode(self.net):
            for rows in batches_by_length(texts, batch_size):
                inputs = texts_to_inputs([texts[row] for row in rows], self.tokenizer)
                parts.append(self({n: t.to(self.device) for n, t in inputs.items()}).cpu())
                order += rows
        vectors = torch.cat(parts)  # (N, D)
        vectors = torch.empty_like(vectors).index_copy_(0, torch.tensor(order), vectors)
        if dim is None:
            return vectors
        return F.normalize(vectors[:, :dim], dim=-1) if self.normalize else vectors[:, :dim]


def info_nce(queries: Tensor, passages: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Return the mean of both directions of InfoNCE in nats.

    In the second direction a passage of several queries must find each of them among the queries
    of other passages.

    Args:
        queries: (Q, D).
        passages: (P, D); those that are no target are hard negatives.
        targets: Row of the passage of each query, (Q,).
        temperature: Divisor of the cosine similarities.
    """
    queries, passages = F.normalize(queries, dim=-1), F.normalize(passages, dim=-1)
    scores = queries @ passages.T / temperature  # (Q, P)
    back = scores[:, targets].T  # (Q, Q): the passage of query i against query j
    other = torch.eye(len(targets), dtype=torch.bool, device=targets.device)
    other |= targets[:, None] != targets  # (Q, Q)
    back = back.masked_fill(~other, float("-inf"))
    rows = torch.arange(len(targets), device=targets.device)  # (Q,)
    return (F.cross_entropy(scores, targets) + F.cross_entropy(back, rows)) / 2


def save_sentence_transformers(encoder: SentenceEncoder, folder: Path) -> None:
    """Write a folder that sentence-transformers and `SentenceEncoder.from_pretrained` open.

    Raises:
        UserError: If the network is not one of transformers, or there is no tokenizer.
    """
    net = encoder.net
    if not isinstance(net, PretrainedEncoder) or encoder.tokenizer is None:
        raise UserError(
            "a folder of sentence-transformers needs a network of transformers, "
            f"modules.nets.PretrainedEncoder, and a tokenizer; this is a {type(net).__name__}."
        )
    save_pretrained(net, folder)
    save_tokenizer(encoder.tokenizer, folder, net.context)
    names = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}
    kinds = ["Transformer", "Pooling", *(["Normalize"] if encoder.normalize else [])]
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": f"{number}_{kind}" if number else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, kind in enumerate(kinds)
    ]
    truncation = encoder.tokenizer.truncation or {"max_length": net.context}
    pooling = {f"pooling_mode_{mode}": encoder.pooling == name for name, mode in names.items()}
    files = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": truncation["max_length"]},
        "1_Pooling/config.json": {"word_embedding_dimension": net.dim, **pooling},
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if encoder.normalize:
        (folder / str(modules[-1]["path"])).mkdir(exist_ok=True)


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
        tokenizer = read("tokenizer_config.json") or {}  # it has the limit since version 6
        settings["context"] = limits.get("max_seq_length") or tokenizer.get("model_max_length")
    for module in read("modules.json") or ():
        kind = module["type"].rpartition(".")[2]
        if kind == "Pooling":
            modes = read(f"{module['path']}/config.json")
            names = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}
            found = [  # since version 6 of sentence-transformers the mode is a string
                name
                for name, mode in names.items()
                if modes.get(f"pooling_mode_{mode}") or modes.get("pooling_mode") == name
            ]
            if len(found) != 1:
                raise UserError(f"{folder}: only mean, cls or max pooling is supported.")
            settings |= {"pooling": found[0], "normalize": False}
        elif kind == "Normalize":
            settings["normalize"] = True
        elif kind != "Transformer":
            raise UserError(f"{folder}: the module {kind} is not supported.")
    return settings
