"""LightningModule for word vectors: skip-gram, CBOW and GloVe."""

from collections.abc import Sequence
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional import spearman_corrcoef

from engine.errors import UserError
from modules.optim.schedules import configure
from modules.training.gradients import (
    mean_over_processes,
    rescale_short_accumulation,
    should_log,
)
from modules.training.hyperparameters import save_arguments
from modules.training.metrics import MeanLoss
from preprocessing.special_tokens import PAD, UNK

SPECIAL_TOKENS = (PAD, UNK)  # vocabulary entries that are not words
ANALOGIES = "analogies"
QUESTIONS_PER_BATCH = 1024  # limits the memory of their cosines with all words

Batch = tuple[dict[str, Tensor], Tensor]


class WordVectors(L.LightningModule):
    """Train a network whose `forward(inputs)` returns logits of pairs and `vectors()` gives (V, D).

    Logs `train/loss` of single batches and `val/loss`: for negative sampling in nats per pair and
    its negatives, for GloVe the mean weighted squared error.

    If the data contain benchmarks, logs `val/<benchmark>`, Spearman's correlation of cosine
    similarities with human scores (0 if all words are unknown), and `val/analogies`, the fraction
    of correct answers. Questions with unknown words are skipped. A validation outside of `fit`, as
    train.py runs it at the end of a training, also logs `val/<benchmark>/asked`, the fraction of
    questions without unknown words, and `val/analogies/<section>`.

    The gradient is that of the sum over a batch, as if all word2vec updates were made at once: with
    `torch.optim.SGD`, learning rates correspond to word2vec's (at most 0.025). A word that occurs a
    hundred times in a batch then moves a hundred steps in the same direction and may overshoot, so
    SGD requires batches of a few hundred words, more for a large vocabulary. `torch.optim.Adagrad`
    adapts the learning rate of each parameter and works with any batch size.

    Args:
        net: The network.
        loss: Loss function, see `negative_sampling` and `weighted_squares`.
        x_max: Count from which on a pair has weight 1 in `weighted_squares`.
        optimizer: Optimizer class and arguments; Adagrad with lr 0.1 by default.
        lr_scheduler: Schedule class and arguments; a constant learning rate by default.
        tokenizer: The vocabulary as a tokenizer in JSON, so that a checkpoint contains its words.
            Linked from the data.
    """

    targets_are_classes = True  # batches are (inputs, targets); forward returns logits

    def __init__(
        self,
        net: nn.Module,
        loss: Literal["negative_sampling", "weighted_squares"] = "negative_sampling",
        x_max: float = 100.0,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        tokenizer: str | None = None,
    ) -> None:
        super().__init__()
        if loss not in ("negative_sampling", "weighted_squares"):
            raise ValueError(f"loss must be negative_sampling or weighted_squares, got {loss!r}")
        if not x_max > 0:
            raise ValueError(f"x_max must be above 0, got {x_max}")
        save_arguments(self)
        self.net = net
        self.loss = loss
        self.x_max = x_max
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.tokenizer = None if tokenizer is None else Tokenizer.from_str(tokenizer)
        self.val_loss = MeanLoss()
        self._answers: dict[str, tuple[Tensor, int, int]] = {}  # score, known questions, questions

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return logits (…, L, C) of words (…, L) and candidates (…, C)."""
        logits: Tensor = self.net(inputs)
        return logits

    def _step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed loss of a batch and its number of pairs."""
        inputs, targets = batch
        logits = self.net(inputs)
        if self.loss == "weighted_squares":
            return weighted_squares(logits, targets, self.x_max), targets.new_tensor(len(targets))
        return negative_sampling(logits, targets), targets.clamp(min=0).sum()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss, pairs = self._step(batch)
        if should_log(self):
            (mean,) = mean_over_processes(self.trainer, pairs, loss)
            self.log("train/loss", mean, prog_bar=True)
        return loss * self.trainer.world_size  # DDP averages over processes

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        rescale_short_accumulation(self)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        inputs, answers = batch
        if "asked" not in inputs:
            self.val_loss.update(*self._step(batch))
            return
        asked = int(inputs["asked"])
        ((name, questions),) = [(k, v) for k, v in inputs.items() if k != "asked"]
        score = self.correct_analogies if name.startswith(ANALOGIES) else self.correlation
        self._answers[name] = (score(questions, answers), len(questions), asked)

    def on_validation_epoch_end(self) -> None:
        self.log("val/loss", self.val_loss.compute(), prog_bar=True)
        self.val_loss.reset()
        answers, self._answers = self._answers, {}
        sections = {k: v for k, v in answers.items() if k.startswith(ANALOGIES)}
        scores = {name: answer for name, answer in answers.items() if name not in sections}
        if sections:
            correct, known, asked = (sum(c) for c in zip(*sections.values(), strict=True))
            scores[ANALOGIES] = correct / max(known, 1), known, asked
        for name, (score, _, _) in scores.items():
            self.log(f"val/{name}", score)
        if self.trainer.state.fn == "fit":  # the details are logged once, after training
            return
        for name, (_, known, asked) in scores.items():
            self.log(f"val/{name}/asked", known / asked)
        for name, (correct, known, _) in sections.items():
            if known:
                self.log(f"val/{name}", correct / known)

    def configure_optimizers(self) -> Any:
        # Silences torch's warning about optimizers that construct sparse tensors.
        torch.sparse.check_sparse_tensor_invariants.disable()
        optimizer = self.optimizer or (lambda p: torch.optim.Adagrad(p, lr=0.1))
        if any(getattr(module, "sparse", False) for module in self.net.modules()):
            _check_supports_sparse_gradients(optimizer)
        return configure(self, optimizer, self.lr_scheduler)

    # Use of the vectors.

    def unit_vectors(self) -> Tensor:
        """Return the vectors scaled to norm 1, (V, D): dot products are cosine similarities."""
        return F.normalize(self.net.vectors().float(), dim=1)  # type: ignore[operator]

    def correlation(self, pairs: Tensor, scores: Tensor) -> Tensor:
        """Return Spearman's correlation of the cosines of word pairs (N, 2) with scores (N,)."""
        if len(pairs) < 2:
            return torch.tensor(0.0)
        first, second = self.unit_vectors()[pairs].unbind(1)  # (N, D), (N, D)
        return spearman_corrcoef(torch.linalg.vecdot(first, second), scores.float())

    def correct_analogies(self, questions: Tensor, answers: Tensor) -> Tensor:
        """Return how many of the questions (N, 3) "a is to b as c is to?" have the answers (N,)."""
        return (self.solve_analogies(questions) == answers).sum()

    def solve_analogies(self, questions: Tensor) -> Tensor:
        """Return for each (a, b, c) the word other than a, b, c closest to b - a + c, (N,).

        Mikolov et al. 2013, called 3CosAdd by Levy & Goldberg 2014; over the full vocabulary.
        """
        unit = self.unit_vectors()  # (V, D)
        special = torch.tensor([index for index, word in enumerate(self.words) if not word])
        found = [torch.empty(0, dtype=torch.int64, device=unit.device)]
        for chunk in questions.split(QUESTIONS_PER_BATCH):
            a, b, c = unit[chunk].unbind(1)  # (n, D) each
            cosines = (b - a + c) @ unit.T  # (n, V)
            cosines.scatter_(1, chunk, -torch.inf)
            cosines[:, special] = -torch.inf
            found.append(cosines.argmax(dim=1))
        return torch.cat(found)

    @property
    def words(self) -> list[str]:
        """The words in the order of their vectors, most frequent first; "" for special tokens."""
        if self.tokenizer is None:
            return [str(index) for index in range(len(self.net.vectors()))]  # type: ignore[operator]
        size = self.tokenizer.get_vocab_size()
        words = [str(self.tokenizer.id_to_token(index)) for index in range(size)]
        return ["" if word in SPECIAL_TOKENS else word for word in words]

    def index(self, word: str) -> int:
        """Return the index of a word's vector.

        Raises:
            UserError: If the word is not in the vocabulary.
        """
        words = self.words
        if word and word in words:
            return words.index(word)
        hint = ""
        if word.lower() in words:
            hint = f" Did you mean {word.lower()!r}? The vocabulary is in lower case."
        raise UserError(
            f"the word {word!r} is not in the vocabulary of {sum(map(bool, words)):,} words (such "
            f"as {', '.join([w for w in words if w][:3])}); it was absent from the training text "
            f"or too rare.{hint}"
        )

    def nearest(self, words: Sequence[str], number: int = 10) -> list[list[tuple[str, float]]]:
        """Return the most similar words of each word with their cosine similarities.

        Args:
            words: Words of the vocabulary.
            number: Number of neighbors of each word.
        """
        unit, names = self.unit_vectors(), self.words
        rows = torch.tensor([self.index(word) for word in words], device=unit.device)
        cosines = unit[rows] @ unit.T  # (N, V)
        cosines.scatter_(1, rows[:, None], -torch.inf)
        cosines[:, [index for index, word in enumerate(names) if not word]] = -torch.inf
        best = cosines.topk(min(number, cosines.shape[1]), dim=1)
        return [
            [(names[n], c) for n, c in zip(*row, strict=True) if c > -torch.inf]
            for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


def _check_supports_sparse_gradients(optimizer: OptimizerCallable) -> None:
    """Take two steps with sparse gradients on a small parameter, before training starts."""
    probe = nn.Parameter(torch.zeros(2, 1))
    instance = optimizer([probe])
    try:
        for _ in range(2):
            probe.grad = torch.sparse_coo_tensor(torch.tensor([[1]]), torch.ones(1, 1), (2, 1))
            instance.step()
    except RuntimeError as error:
        raise UserError(
            f"{type(instance).__name__} does not support the sparse gradients of word vectors "
            f"({str(error).splitlines()[0]}): choose --model.optimizer SGD (without weight decay), "
            "Adagrad or SparseAdam."
        ) from error


def negative_sampling(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of  - ln σ(s)  over pairs of the text and  - ln σ(-s)  over negative samples.

    Mikolov et al. 2013, equation 4.

    Args:
        logits: s, of any shape.
        targets: Weights of the same shape: positive for pairs, negative for negative samples, 0 for
            padding.
    """
    return F.binary_cross_entropy_with_logits(
        logits, (targets > 0).to(logits.dtype), weight=targets.abs(), reduction="sum"
    )


def weighted_squares(logits: Tensor, counts: Tensor, x_max: float) -> Tensor:
    """Return the sum over pairs of  f(x) · (s - ln x)²,  f(x) = min(1, x / x_max)^0.75.

    Pennington et al. 2014, equations 8 and 9.

    Args:
        logits: s, of any shape.
        counts: x, of the same shape, above 0.
        x_max: Count from which on the weight is 1.
    """
    weights = (counts / x_max).clamp(max=1) ** 0.75
    return (weights * (logits - counts.log()).square()).sum()
