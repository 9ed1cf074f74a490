"""LightningModule for preference tuning: make the preferred of two answers more likely.

Rafailov et al. 2023, "Direct preference optimization". Reinforcement learning from human feedback
needs a reward model and sampling; here the policy itself is the reward model, and the loss is that
of a classifier of pairs.
"""

from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.nn import functional as F

from engine.errors import UserError
from engine.eval_mode import eval_mode
from modules.language_model import Batch, LanguageModel
from modules.training.gradients import mean_over_processes, should_log
from modules.training.metrics import MeanLoss, stage_metrics
from preprocessing.special_tokens import IGNORE_INDEX


def dpo_loss(margins: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the loss of each pair (Rafailov et al. 2023, equation 7).

    Args:
        margins: β log(π(chosen) / π_ref(chosen)) - β log(π(rejected) / π_ref(rejected)), (B,).
        label_smoothing: Probability that a label is wrong, in [0, 0.5) (Mitchell 2023, cDPO).
    """
    # L = -(1 - ε) log σ(margin) - ε log σ(-margin)
    right, wrong = F.logsigmoid(margins), F.logsigmoid(-margins)
    return -(1 - label_smoothing) * right - label_smoothing * wrong


def answer_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """Return log π(answer | prompt), (N,), for logits (N, T, V) and targets (N, T)."""
    nats = F.cross_entropy(
        logits.flatten(0, 1).float(),
        targets.flatten(),
        ignore_index=IGNORE_INDEX,
        reduction="none",
    )
    return -nats.view_as(targets).sum(dim=1)


class PreferenceModel(LanguageModel):
    """Tune a language model on pairs of a chosen and a rejected answer (DPO).

    The reference is the network as it is when training begins. Its log-probabilities of all answers
    are computed once and kept in the checkpoints, so that training holds one network only.

    Logs `train/loss`, and for val and test `loss`, `reward_accuracy` (fraction of pairs whose
    chosen answer has the higher reward; the reward is β log(π / π_ref)) and `reward_margin` (mean
    difference of the rewards). The data module must have `evaluation_loader(split)`, as
    datamodules.Preferences has. Also takes the arguments of LanguageModel.

    Args:
        beta: Strength β of the constraint to the reference, above 0.
        label_smoothing: Probability that a label is wrong, in [0, 0.5).
    """

    def __init__(
        self, *args: Any, beta: float = 0.1, label_smoothing: float = 0.0, **kwargs: Any
    ) -> None:
        if beta <= 0:
            raise UserError(f"model.beta must be above 0, got {beta}.")
        if not 0 <= label_smoothing < 0.5:
            raise UserError(f"model.label_smoothing must be in [0, 0.5), got {label_smoothing}.")
        super().__init__(*args, **kwargs)
        if self.loss_chunk_size is not None:
            raise UserError("PreferenceModel does not support model.loss_chunk_size: leave it out.")
        self.hparams.update(beta=beta, label_smoothing=label_smoothing)
        self.beta = beta
        self.label_smoothing = label_smoothing
        self.reference: dict[str, Tensor] = {}  # log-probabilities of each split, (N, 2)
        names = ("loss", "reward_accuracy", "reward_margin")
        self.metrics = stage_metrics({name: MeanLoss() for name in names})

    def forward(self, inputs: Any, state: Any = None) -> tuple[Tensor, Any]:
        """Return logits (B, T, V) of tokens (B, T), or (B, 2, T, V) of pairs (B, 2, T)."""
        if isinstance(inputs, Tensor):
            return super().forward(inputs, state)
        tokens = inputs["input_ids"]
        logits, _ = super().forward(tokens.flatten(0, 1))  # padding follows the answers
        return logits.unflatten(0, tokens.shape[:2]), None

    def log_probs(self, batch: Batch) -> Tensor:
        """Return the log-probabilities of the chosen and the rejected answers, (B, 2)."""
        inputs, targets = batch
        logits, _ = self(inputs)  # (B, 2, T, V)
        return answer_log_probs(logits.flatten(0, 1), targets.flatten(0, 1)).view(-1, 2)

    def _margins(self, batch: Batch, stage: str) -> Tensor:
        inputs: Any = batch[0]
        index = inputs["index"]
        reference = self.reference[stage].to(index.device)[index]  # (B, 2)
        rewards = self.beta * (self.log_probs(batch) - reference)  # (B, 2)
        return rewards[:, 0] - rewards[:, 1]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses = dpo_loss(self._margins(batch, "train"), self.label_smoothing)  # (B,)
        if should_log(self):
            count = torch.tensor(len(losses), device=losses.device)
            (loss,) = mean_over_processes(self.trainer, count, losses.sum())
            self.log("train/loss", loss, prog_bar=True)
        return losses.mean()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        pass  # the loss is a mean over pairs, whose number is the same in every batch

    def _evaluate(self, batch: Batch, stage: str) -> None:
        margins = self._margins(batch, stage)
        values = {
            "loss": dpo_loss(margins, self.label_smoothing),
            "reward_accuracy": (margins > 0).float(),
            "reward_margin": margins,
        }
        for name, value in values.items():
            self.metrics[stage][name].update(value.sum(), len(value))  # type: ignore[index]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    # The reference.

    def on_train_start(self) -> None:
        self._compute_reference()

    def on_validation_start(self) -> None:
        self._compute_reference()

    def on_test_start(self) -> None:
        self._compute_reference()

    @torch.no_grad()
    def _compute_reference(self) -> None:
        """Compute the reference, unless it came with the checkpoint or from an earlier call."""
        if self.reference:
            return
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        rank_zero_info("Computing the reference log-probabilities of all pairs.")
        with eval_mode(self), self.trainer.precision_plugin.forward_context():
            for split in ("train", "val", "test"):
                size = len(data.splits[split])
                table = torch.zeros(size, 2, device=self.device)
                for batch in data.evaluation_loader(split):
                    batch = self.trainer.strategy.batch_to_device(batch, self.device)
                    table[batch[0]["index"]] = self.log_probs(batch)
                self.reference[split] = self.trainer.strategy.reduce(table, reduce_op="sum").cpu()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["reference_log_probs"] = dict(self.reference)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.reference = dict(checkpoint.get("reference_log_probs", {}))
