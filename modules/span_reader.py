"""LightningModule for extractive question answering: the part of a text that answers a question."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from engine.distributed.sharding import shard
from engine.errors import UserError
from engine.eval_mode import eval_mode
from modules.adapters.methods import Adapter
from modules.adapters.task import AdapterTask
from modules.optim.schedules import configure
from modules.training.gradients import rescale_short_accumulation, should_log
from modules.training.hyperparameters import save_arguments
from modules.training.metrics import MeanLoss, TokenAccuracy, log_metrics, stage_metrics
from preprocessing.question_windows import Window, encode_windows
from preprocessing.special_tokens import PAD, special_token_id

Batch = tuple[dict[str, Tensor], Tensor]


class AnswerSpan(NamedTuple):
    """The part of a text that answers a question."""

    text: str
    start: int  # offset of its first character
    end: int  # offset after its last character
    score: float  # log-odds against "no answer in this text"


class SpanReader(AdapterTask):
    """Train a network whose `forward(inputs)` returns start and end logits of all tokens.

    The probability of a span is softmax(start) · softmax(end) over the tokens of a window; that of
    no answer is the span of the first token, [CLS] (Devlin et al. 2019, sections 4.2 and 4.3). Logs
    `<stage>/loss` (nats, mean of start and end) for train, val and test; val and test add
    `exact_match`, the fraction of windows whose span is correct, and `span_f1`, the mean F1 of
    predicted and true tokens. scripts/evaluate_answers.py computes SQuAD's scores.

    Args:
        net: Returns logits (B, T, 2); its sizes come from the data.
        optimizer: Optimizer class and arguments; AdamW with lr 0.001 by default.
        lr_scheduler: Schedule class and arguments; a constant learning rate by default.
        max_answer_tokens: Maximum number of tokens of an answer.
        tokenizer: How question and text become windows: a tokenizer as JSON, whose truncation says
            how long they are and how much they share. Linked from the data.
        adapter: What to train while the other weights of the network are frozen, such as
            modules.adapters.LoRA; all weights are trained by default.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        max_answer_tokens: int = 30,
        tokenizer: str | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        super().__init__()
        if max_answer_tokens < 1:
            raise UserError(f"max_answer_tokens must be at least 1, got {max_answer_tokens}.")
        save_arguments(self)
        self.set_net(net, adapter)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.max_answer_tokens = max_answer_tokens
        self.tokenizer = None if tokenizer is None else Tokenizer.from_str(tokenizer)
        self.metrics = stage_metrics(
            {"loss": MeanLoss(), "exact_match": TokenAccuracy(), "span_f1": TokenAccuracy()}
        )

    @property
    def backbone(self) -> nn.Module:
        """The part of the network that callbacks.BackboneFinetuning freezes at first."""
        backbone: nn.Module = self.net.backbone  # type: ignore[assignment]
        return backbone

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return start and end logits (B, T, 2), -inf at tokens that cannot be in an answer.

        Only the tokens of the text can, and the first token for "no answer".
        """
        logits = self.net(inputs).float()  # (B, T, 2)
        possible = inputs["token_type_ids"].bool() & inputs["attention_mask"].bool()  # (B, T)
        possible[:, 0] = True
        return logits.masked_fill(~possible.unsqueeze(-1), float("-inf"))

    def _step(self, batch: Batch, stage: str) -> Tensor:
        inputs, targets = batch
        logits = self(inputs)  # (B, T, 2)
        loss = F.cross_entropy(logits, targets)  # over T, mean of (B, 2)
        if stage != "train":
            self._update_metrics(stage, logits, targets, loss)
        return loss

    def _update_metrics(self, stage: str, logits: Tensor, targets: Tensor, loss: Tensor) -> None:
        starts, ends, _ = best_spans(logits, self.max_answer_tokens, with_first=True)
        first, last = targets.unbind(1)
        common = (torch.minimum(ends, last) - torch.maximum(starts, first) + 1).clamp(min=0)
        f1 = 2 * common / (ends - starts + last - first + 2)  # (B,)
        metrics: Any = self.metrics[stage]
        count = len(targets)
        metrics["loss"].update(loss * count, count)
        metrics["exact_match"].update(((starts == first) & (ends == last)).sum(), count)
        metrics["span_f1"].update(f1.sum(), count)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self._step(batch, "train")
        if should_log(self):
            self.log("train/loss", loss.detach(), prog_bar=True, sync_dist=True)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        rescale_short_accumulation(self)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "test")

    def on_validation_epoch_end(self) -> None:
        log_metrics(self, "val")

    def on_test_epoch_end(self) -> None:
        log_metrics(self, "test")

    def configure_model(self) -> None:
        shard(self)

    def configure_optimizers(self) -> Any:
        return configure(self, self.optimizer, self.lr_scheduler)

    @torch.inference_mode()
    def answer(
        self, question: str | Sequence[str], context: str | Sequence[str], batch_size: int = 16
    ) -> Any:
        """Find the part of a text that answers a question.

        A text that exceeds the context of the network is read in overlapping windows. The score is
        positive where the answer is more probable than none.

        Args:
            question: One question, or one per text.
            context: One text or several.
            batch_size: Windows that are read at a time.

        Returns:
            An AnswerSpan; of several texts a list of them.

        Raises:
            UserError: If there is nothing to read, or the task was trained without `tokenizer`.
        """
        if self.tokenizer is None:
            raise UserError("this SpanReader was trained without `tokenizer`.")
        texts = [context] if isinstance(context, str) else list(context)
        questions = [question] * len(texts) if isinstance(question, str) else list(question)
        if not texts or len(questions) != len(texts):
            raise UserError(f"answer: {len(questions)} questions for {len(texts)} texts.")
        groups = encode_windows(self.tokenizer, questions, texts)
        windows = [(row, window) for row, group in enumerate(groups) for window in group]
        windows.sort(key=lambda pair: len(pair[1].tokens))
        best = [AnswerSpan("", 0, 0, float("-inf"))] * len(texts)
        with eval_mode(self.net):
            for first in range(0, len(windows), batch_size):
                batch = windows[first : first + batch_size]
                for row, start, end, score in self._read(batch):
                    if score > best[row].score:
                        best[row] = AnswerSpan(texts[row][start:end], start, end, score)
        return best[0] if isinstance(context, str) else best

    def _read(self, windows: Sequence[tuple[int, Window]]) -> list[tuple[int, int, int, float]]:
        """Return text, start, end and score of the best span of each window that has one."""
        inputs = self._pad([window for _, window in windows])
        logits = self(inputs)  # (B, T, 2)
        for row, (_, window) in enumerate(windows):  # special tokens are not in the text
            outside = [n for n, span in enumerate(window.offsets) if n and span is None]
            logits[row, outside] = float("-inf")
        starts, ends, scores = best_spans(logits, self.max_answer_tokens)
        scores = scores - logits[:, 0].sum(dim=1)  # (B,)
        found = []
        for (row, window), start, end, score in zip(
            windows, starts.tolist(), ends.tolist(), scores.tolist(), strict=True
        ):
            first, last = window.offsets[start], window.offsets[end]
            if first is not None and last is not None:  # else the text is empty
                found.append((row, first[0], last[1], score))
        return found

    def _pad(self, windows: Sequence[Window]) -> dict[str, Tensor]:
        width = max(len(window.tokens) for window in windows)
        pad = special_token_id(self.tokenizer, PAD) or 0  # type: ignore[arg-type]
        ids = torch.full((len(windows), width), pad)  # (B, T)
        types = torch.zeros_like(ids)  # (B, T)
        mask = torch.zeros_like(ids, dtype=torch.bool)  # (B, T)
        for row, window in enumerate(windows):
            size = len(window.tokens)
            ids[row, :size] = torch.tensor(window.tokens)
            types[row, :size] = torch.tensor(window.types)
            mask[row, :size] = True
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}


def best_spans(
    logits: Tensor, max_tokens: int, with_first: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first and last token of the span with the largest sum of logits, and this sum.

    Args:
        logits: Start and end logits (B, T, 2).
        max_tokens: Maximum number of tokens of a span.
        with_first: Whether the first token, "no answer", is a span.
    """
    starts, ends = logits.unbind(-1)  # (B, T)
    length = starts.shape[1]
    if not with_first:
        starts = starts.clone()
        starts[:, 0] = float("-inf")
    joint = starts.unsqueeze(2) + ends.unsqueeze(1)  # (B, start T, end T)
    allowed = torch.ones(length, length, dtype=torch.bool, device=logits.device)
    allowed = allowed.triu() & ~allowed.triu(max_tokens)
    allowed[0, 1:] = False  # an answer does not begin at the first token
    joint = joint.masked_fill(~allowed, float("-inf"))
    scores, best = joint.flatten(1).max(dim=1)  # (B,)
    return best // length, best % length, scores
