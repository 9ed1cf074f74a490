"""The task of giving words vectors by the company that they keep."""

from collections.abc import Sequence
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional import spearman_corrcoef

from modules.optim.schedules import configure
from modules.training.hyperparameters import save_arguments
from modules.training.sum_metric import Float32Sum
from modules.training.token_mean import means_over_processes
from preprocessing.special_tokens import PAD, UNK

SPECIAL = (PAD, UNK)  # numbers that are no words
ANALOGIES = "analogies"
AT_ONCE = 1024  # questions, whose products with all words stand in memory


class WordVectors(L.LightningModule):
    """Train any net whose `forward(inputs)` returns logits of pairs and `vectors()` gives (V, D).

    Logs `train/loss` of single batches and `val/loss`: of negative sampling, nats a pair and its
    negatives; of GloVe, the mean of its weighted squares.

    Then, where the data ask them: `val/<benchmark>`, Spearman's correlation of cosines with
    people's scores (of words that are all unknown, none), `val/analogies`, the share answered
    rightly. Questions with an unknown word are left out: `val/<benchmark>/asked` is the share that
    was asked, and `val/analogies/<section>` the share answered rightly of a section. These two are
    told of a validation that is no part of a training, as `train.py fit` does it at its end.

    The gradient is that of the sum over a batch, as if word2vec's steps were all made at once: with
    `torch.optim.SGD` its rates are word2vec's, 0.025 and less. But a word that stands in a batch a
    hundred times then takes a hundred steps the same way, and the sum may overshoot: SGD needs
    batches of some hundred words, more in a large vocabulary. `torch.optim.Adagrad` gives every
    number a rate of its own, which falls with what it has moved, and takes batches of any size.

    Args:
        net: The architecture; its sizes come from the data.
        loss: What logits and targets mean, see `negative_sampling` and `weighted_squares`.
        x_max: Of weighted squares: counts from here on weigh 1.
        optimizer: Optimizer class and arguments; Adagrad with lr 0.1 by default.
        lr_scheduler: Schedule class and arguments; a constant rate by default.
        tokenizer: The vocabulary as a tokenizer in JSON, so that a checkpoint knows its words by
            itself. Linked from the data.
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
            raise ValueError(f"loss must be negative_sampling or weighted_squares, not {loss!r}")
        if not x_max > 0:
            raise ValueError(f"x_max must be above 0, not {x_max}")
        save_arguments(self, {k: v for k, v in locals().items() if k not in ("self", "__class__")})
        self.net = net
        self.loss = loss
        self.x_max = x_max
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.tokenizer = None if tokenizer is None else Tokenizer.from_str(tokenizer)
        self.evaluated_loss = Float32Sum()
        self.evaluated_pairs = Float32Sum()
        self._answers: dict[str, tuple[Tensor, int, int]] = {}  # value, questions, those asked

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Logits of words (…, L) and candidates (…, C), (…, L, C)."""
        logits: Tensor = self.net(inputs)
        return logits

    def _step(self, batch: tuple[dict[str, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The loss summed over a batch, and how many pairs it is of."""
        inputs, targets = batch
        logits = self.net(inputs)
        if self.loss == "weighted_squares":
            return weighted_squares(logits, targets, self.x_max), targets.new_tensor(len(targets))
        return negative_sampling(logits, targets), targets.clamp(min=0).sum()

    def training_step(self, batch: tuple[dict[str, Tensor], Tensor], batch_idx: int) -> Tensor:
        loss, pairs = self._step(batch)
        interval: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (self.global_step + 1) % interval == 0:
            (mean,) = means_over_processes(self.trainer, pairs, loss)
            self.log("train/loss", mean, prog_bar=True)
        return loss * self.trainer.world_size  # DDP takes the mean over processes

    def validation_step(self, batch: tuple[dict[str, Tensor], Tensor], batch_idx: int) -> None:
        inputs, answers = batch
        if "asked" not in inputs:
            loss, pairs = self._step(batch)
            self.evaluated_loss.update(loss)
            self.evaluated_pairs.update(pairs)
            return
        asked = int(inputs["asked"])
        ((name, questions),) = [(k, v) for k, v in inputs.items() if k != "asked"]
        judge = self.correct_analogies if name.startswith(ANALOGIES) else self.correlation
        self._answers[name] = (judge(questions, answers), len(questions), asked)

    def on_validation_epoch_end(self) -> None:
        pairs = self.evaluated_pairs.compute()
        self.log("val/loss", self.evaluated_loss.compute() / pairs.clamp(min=1), prog_bar=True)
        self.evaluated_loss.reset()
        self.evaluated_pairs.reset()
        found, self._answers = self._answers, {}
        sections = {k: v for k, v in found.items() if k.startswith(ANALOGIES)}
        scores = {name: answers for name, answers in found.items() if name not in sections}
        if sections:
            right, known, asked = (sum(column) for column in zip(*sections.values(), strict=True))
            scores[ANALOGIES] = right / max(known, 1), known, asked
        for name, (score, _, _) in scores.items():
            self.log(f"val/{name}", score)
        if self.trainer.state.fn == "fit":  # what else there is to know is told once, at the end
            return
        for name, (_, known, asked) in scores.items():
            self.log(f"val/{name}/asked", known / asked)
        for name, (number, known, _) in sections.items():
            if known:
                self.log(f"val/{name}", number / known)

    def configure_optimizers(self) -> Any:
        # Said by nobody, torch warns of it where an optimizer makes its own sparse tensors.
        torch.sparse.check_sparse_tensor_invariants.disable()
        optimizer = self.optimizer or (lambda p: torch.optim.Adagrad(p, lr=0.1))
        if any(getattr(module, "sparse", False) for module in self.net.modules()):
            _check_takes_sparse(optimizer)
        return configure(self, optimizer, self.lr_scheduler)

    # What vectors are for.

    def unit_vectors(self) -> Tensor:
        """Vectors of length 1, (V, D): their products are cosines."""
        return F.normalize(self.net.vectors().float(), dim=1)  # type: ignore[operator]

    def correlation(self, pairs: Tensor, scores: Tensor) -> Tensor:
        """Spearman's correlation of the cosines of pairs of words (N, 2) with scores (N,)."""
        if len(pairs) < 2:
            return torch.tensor(0.0)
        first, second = self.unit_vectors()[pairs].unbind(1)  # (N, D), (N, D)
        return spearman_corrcoef(torch.linalg.vecdot(first, second), scores.float())

    def correct_analogies(self, questions: Tensor, answers: Tensor) -> Tensor:
        """How many of (N, 3) questions get the answers (N,): a is to b as c is to which word?"""
        return (self.solve_analogies(questions) == answers).sum()

    def solve_analogies(self, questions: Tensor) -> Tensor:
        """The word that b - a + c is most like, by its cosine and not a, b or c itself, (N,).

        Mikolov et al. 2013, as Levy & Goldberg 2014 call it 3CosAdd; over all words.
        """
        unit = self.unit_vectors()  # (V, D)
        no_words = torch.tensor([number for number, word in enumerate(self.words) if not word])
        found = [torch.empty(0, dtype=torch.int64, device=unit.device)]
        for part in questions.split(AT_ONCE):
            a, b, c = unit[part].unbind(1)  # (n, D) each
            cosines = (b - a + c) @ unit.T  # (n, V)
            cosines.scatter_(1, part, -torch.inf)
            cosines[:, no_words] = -torch.inf
            found.append(cosines.argmax(dim=1))
        return torch.cat(found)

    @property
    def words(self) -> list[str]:
        """The words in the order of their vectors, the most frequent first; "" for no word."""
        if self.tokenizer is None:
            return [str(number) for number in range(len(self.net.vectors()))]  # type: ignore[operator]
        size = self.tokenizer.get_vocab_size()
        found = [str(self.tokenizer.id_to_token(number)) for number in range(size)]
        return ["" if word in SPECIAL else word for word in found]

    def index(self, word: str) -> int:
        """The number of a word.

        Raises:
            MisconfigurationException: If it has no vector.
        """
        words = self.words
        if not word or word not in words:
            raise MisconfigurationException(
                f"the word {word!r} has no vector: it was too rare in the text, or not in it. "
                f"There are {sum(map(bool, words)):,} words, such as "
                f"{', '.join([w for w in words if w][:3])}."
            )
        return words.index(word)

    def nearest(self, words: Sequence[str], number: int = 10) -> list[list[tuple[str, float]]]:
        """The words most like each of some, with their cosines, the nearest first.

        Args:
            words: Known words.
            number: How many neighbours of each.
        """
        unit, names = self.unit_vectors(), self.words
        rows = torch.tensor([self.index(word) for word in words], device=unit.device)
        cosines = unit[rows] @ unit.T  # (N, V)
        cosines.scatter_(1, rows[:, None], -torch.inf)
        cosines[:, [number for number, word in enumerate(names) if not word]] = -torch.inf
        best = cosines.topk(min(number, cosines.shape[1]), dim=1)
        return [
            [(names[n], c) for n, c in zip(*row, strict=True) if c > -torch.inf]
            for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


def _check_takes_sparse(optimizer: OptimizerCallable) -> None:
    """Let an optimizer make two steps with gradients of a few rows, before any work is done."""
    probe = nn.Parameter(torch.zeros(2, 1))
    made = optimizer([probe])
    try:
        for _ in range(2):
            probe.grad = torch.sparse_coo_tensor(torch.tensor([[1]]), torch.ones(1, 1), (2, 1))
            made.step()
    except RuntimeError as error:
        raise MisconfigurationException(
            f"{type(made).__name__} takes no gradients of single rows, as a net of word vectors "
            f"gives them ({str(error).splitlines()[0]}): choose --model.optimizer SGD, Adagrad or "
            "SparseAdam, SGD without weight decay."
        ) from error


def negative_sampling(logits: Tensor, targets: Tensor) -> Tensor:
    """The sum over pairs of  - ln σ(s) for those of the text,  - ln σ(-s) for drawn ones.

    Args:
        logits: s, of any shape.
        targets: Weights, as large: above 0 of pairs, below 0 of drawn ones, 0 of what is neither.
    """
    return F.binary_cross_entropy_with_logits(
        logits, (targets > 0).to(logits.dtype), weight=targets.abs(), reduction="sum"
    )


def weighted_squares(logits: Tensor, counts: Tensor, x_max: float) -> Tensor:
    """The sum over pairs of  f(x) · (s - ln x)²,  f(x) = min(1, x / x_max)^0.75.

    Pennington et al. 2014, equations 8 and 9.

    Args:
        logits: s, of any shape.
        counts: x, as large, above 0.
        x_max: Counts from here on weigh 1.
    """
    weights = (counts / x_max).clamp(max=1) ** 0.75
    return (weights * (logits - counts.log()).square()).sum()
