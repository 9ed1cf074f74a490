"""LightningModule for masked language modeling: predict masked tokens from their context."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from engine.distributed.sharding import shard
from engine.errors import UserError
from engine.eval_mode import eval_mode
from modules.adapters.methods import Adapter
from modules.adapters.task import AdapterTask
from modules.optim.schedules import configure
from modules.training.gradients import TokenMeanGradient, mean_over_processes, should_log
from modules.training.hyperparameters import save_arguments
from modules.training.metrics import (
    MeanLoss,
    Perplexity,
    TokenAccuracy,
    log_metrics,
    stage_metrics,
)
from modules.training.token_loss import TokenLoss
from preprocessing.special_tokens import CLS, IGNORE_INDEX, MASK, PAD, SEP, UNK

SPECIAL_TOKENS = (PAD, UNK, CLS, SEP, MASK)  # never masked, never drawn as replacements
MASK_32_BITS = 0xFFFFFFFF

Batch = tuple[dict[str, Tensor], Tensor]


class MaskedTokens(NamedTuple):
    """Token sequences with some tokens masked."""

    tokens: Tensor  # (B, T)
    positions: Tensor  # (B, N): positions to predict
    targets: Tensor  # (B, N): original tokens; IGNORE_INDEX where a sequence has fewer positions


class MaskedLanguageModel(AdapterTask):
    """Train a network whose `forward(inputs, positions)` returns logits (B, N, V) at positions.

    A fraction `rate` of the tokens of each sequence is to be predicted (Devlin et al. 2019): 80 %
    of them are replaced by [MASK], 10 % by a random token, and 10 % are unchanged, so that the
    network needs a representation of every token. The choice is a pure function of the number
    `draw` that comes with each sequence (B,) and of the position: it differs between training
    epochs, is the same in every validation, and does not depend on batch, device or number of
    processes.

    Logs `train/loss` of single batches every `trainer.log_every_n_steps` and, over all masked
    tokens of the validation split, `val/loss` (nats per token), `val/perplexity` (its exponential)
    and `val/accuracy`.

    Args:
        net: The network; its sizes come from the data.
        optimizer: Optimizer class and arguments; AdamW with lr 0.001 by default.
        lr_scheduler: Schedule class and arguments; a constant learning rate by default.
        rate: Fraction of the tokens of a sequence that are predicted, in (0, 1].
        tokenizer: The tokenizer as JSON, with a token [MASK]. Linked from the data.
        adapter: What to train while the other weights of the network are frozen, such as
            modules.adapters.LoRA; all weights are trained by default.
    """

    targets_are_classes = True  # batches are (inputs, targets); forward returns logits

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        rate: float = 0.15,
        tokenizer: str | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        super().__init__()
        if not 0 < rate <= 1:
            raise ValueError(f"rate must be in (0, 1], got {rate}")
        if tokenizer is None:
            raise ValueError("MaskedLanguageModel requires `tokenizer`, which defines [MASK]")
        save_arguments(self)
        self.set_net(net, adapter)
        self.token_loss = TokenLoss()
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.rate = rate
        self.tokenizer = Tokenizer.from_str(tokenizer)
        mask_id = self.tokenizer.token_to_id(MASK)
        if mask_id is None:
            raise ValueError(
                "MaskedLanguageModel: the tokenizer has no token [MASK]; choose --data.tokenizer "
                "wordpiece or bert"
            )
        self.mask_id: int = mask_id
        special = {self.tokenizer.token_to_id(name) for name in SPECIAL_TOKENS}
        ordinary = [n for n in range(self.tokenizer.get_vocab_size()) if n not in special]
        self.register_buffer("ordinary", torch.tensor(ordinary), persistent=False)
        self.gradient = TokenMeanGradient()
        self.metrics = stage_metrics(
            {"loss": MeanLoss(), "perplexity": Perplexity(), "accuracy": TokenAccuracy()}
        )

    def forward(self, inputs: dict[str, Tensor], positions: Tensor | None = None) -> Tensor:
        """Return logits for all tokens (B, T, V), or at positions (B, N) only, (B, N, V)."""
        logits: Tensor = self.net(inputs, positions)
        return logits

    def mask_tokens(self, inputs: dict[str, Tensor]) -> MaskedTokens:
        """Mask tokens, on the device of the inputs.

        Args:
            inputs: `input_ids` (B, T) and `draw` (B,), the number that determines the choice.
        """
        if "draw" not in inputs:
            raise UserError(
                "MaskedLanguageModel needs data with a number `draw` for every sequence, which "
                "determines the masked tokens: choose --data PackedIMDB, PackedFiles or "
                "PackedSource."
            )
        ordinary: Tensor = self.ordinary  # type: ignore[assignment]
        return mask_tokens(inputs["input_ids"], inputs["draw"], ordinary, self.mask_id, self.rate)

    def _step(self, batch: Batch, stage: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return the summed loss in nats, the number of targets, and the targets (B, N)."""
        inputs, _ = batch
        tokens, positions, targets = self.mask_tokens(inputs)
        logits = self.net(inputs | {"input_ids": tokens}, positions)  # (B, N, V)
        nats, count = self.token_loss(logits, targets), (targets != IGNORE_INDEX).sum()
        if stage != "train":
            correct = (logits.argmax(dim=-1) == targets).sum()
            self.metrics[stage].update(  # type: ignore[operator]
                loss=nats, correct=correct, count=count
            )
        return nats, count, targets

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        nats, count, targets = self._step(batch, "train")
        if should_log(self):
            (loss,) = mean_over_processes(self.trainer, count, nats)
            self.log("train/loss", loss, prog_bar=True)
        return self.gradient.loss(self, nats, count, targets.numel())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.gradient.rescale(self)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "val")

    def on_validation_epoch_end(self) -> None:
        log_metrics(self, "val")

    def configure_model(self) -> None:
        shard(self)

    def configure_optimizers(self) -> Any:
        return configure(self, self.optimizer, self.lr_scheduler)

    def decode_tokens(self, tokens: Sequence[int]) -> list[str]:
        """Return the text of each token; parts of a word other than the first start with "##"."""
        return [self.tokenizer.id_to_token(token) or "" for token in tokens]

    @torch.no_grad()
    def top_predictions(self, inputs: dict[str, Tensor], positions: Tensor, top: int = 5) -> Any:
        """Return the most probable tokens at positions.

        Args:
            inputs: As the network takes them.
            positions: (B, N).
            top: Number of tokens.

        Returns:
            Probabilities and tokens, both (B, N, top), in descending order.
        """
        with eval_mode(self.net):
            logits = self.net(inputs, positions).float()  # (B, N, V)
        return logits.softmax(dim=-1).topk(top)

    def fill_mask(self, texts: str | Sequence[str], top_k: int = 5) -> list[Any]:
        """Predict the token of each [MASK] in a text, or in each of several texts.

        Args:
            texts: One text or several.
            top_k: Number of tokens, at most those of the vocabulary.

        Returns:
            For each [MASK] the most probable tokens and their probabilities, in descending order;
            for several texts a list of that for each text.

        Raises:
            UserError: If a text has no [MASK].
        """
        several = [texts] if isinstance(texts, str) else texts
        rows = [torch.tensor(self.tokenizer.encode(text).ids) for text in several]
        masks = [torch.eq(row, self.mask_id).nonzero().flatten() for row in rows]
        if not all(map(len, masks)):
            raise UserError("the text has no [MASK] within the context of the network")
        inputs = {
            "input_ids": pad_sequence(rows, batch_first=True).to(self.device),  # (B, T)
            "attention_mask": pad_sequence(
                [torch.ones_like(row, dtype=torch.bool) for row in rows], batch_first=True
            ).to(self.device),  # (B, T)
        }
        positions = pad_sequence(masks, batch_first=True).to(self.device)  # (B, N)
        top = min(top_k, self.tokenizer.get_vocab_size())
        probabilities, tokens = self.top_predictions(inputs, positions, top)  # (B, N, top) each
        filled = [
            [
                list(zip(self.decode_tokens(predicted.tolist()), p.tolist(), strict=True))
                for p, predicted in zip(probabilities[row], tokens[row], strict=True)
            ][: len(masks[row])]
            for row in range(len(rows))
        ]
        return filled[0] if isinstance(texts, str) else filled


def mask_tokens(
    tokens: Tensor, draw: Tensor, ordinary: Tensor, mask_id: int, rate: float
) -> MaskedTokens:
    """Choose tokens to predict and replace them by [MASK], a random token or themselves.

    All shapes are fixed: N = rate · T; unused positions of a shorter sequence have IGNORE_INDEX.

    Args:
        tokens: (B, T).
        draw: (B,), integers that determine the choice.
        ordinary: Tokens that may be masked or drawn as replacements, sorted.
        mask_id: The token [MASK].
        rate: Fraction of the ordinary tokens of a sequence to choose, rounded, at least one.
    """
    T = tokens.shape[1]
    index = torch.searchsorted(ordinary, tokens).clamp(max=len(ordinary) - 1)  # (B, T)
    maskable = ordinary[index] == tokens  # (B, T)
    # Choose the positions with the smallest hash values; the position breaks ties.
    order = hash_values(draw, T, 0) * T + torch.arange(T, device=tokens.device)  # (B, T)
    order = order.masked_fill(~maskable, (MASK_32_BITS + 1) * T)
    positions = order.topk(max(1, round(rate * T)), largest=False).indices  # (B, N)
    available = maskable.sum(dim=1, keepdim=True)  # (B, 1)
    number = (available * rate).round().clamp(min=1).minimum(available)  # (B, 1)
    chosen = torch.arange(positions.shape[1], device=tokens.device) < number  # (B, N)
    originals = tokens.gather(1, positions)  # (B, N)
    uniform = hash_values(draw, T, 1).gather(1, positions) / (MASK_32_BITS + 1)  # (B, N), in [0, 1)
    random = ordinary[hash_values(draw, T, 2).gather(1, positions) % len(ordinary)]  # (B, N)
    replaced = torch.where(uniform < 0.9, random, originals)  # (B, N)
    replaced = replaced.masked_fill(uniform < 0.8, mask_id)
    replaced = torch.where(chosen, replaced, originals)
    return MaskedTokens(
        tokens.scatter(1, positions, replaced),
        positions,
        originals.masked_fill(~chosen, IGNORE_INDEX),
    )


def hash_values(draw: Tensor, length: int, stream: int) -> Tensor:
    """Return pseudo-random numbers in 0 … 2³² - 1 as a function of (draw, position, stream).

    A hash instead of a generator gives the same numbers on every device and for any shard of a
    batch.

    Args:
        draw: (B,), int64.
        length: T.
        stream: Index of one of several independent sets of numbers.

    Returns:
        (B, T), int64.
    """
    sequence = mix_bits(mix_bits(draw & MASK_32_BITS) ^ (draw >> 32 & MASK_32_BITS))  # (B,)
    position = torch.arange(length, device=draw.device) + (stream << 20)  # (T,)
    return mix_bits(
        mix_bits(sequence[:, None] ^ mix_bits(position)) + sequence[:, None] & MASK_32_BITS
    )


def mix_bits(x: Tensor) -> Tensor:
    """Apply the finalizer of MurmurHash3 (Appleby 2011) to 32-bit integers.

    Products overflow 63 bits, which does not change their lower 32 bits.
    """
    x = (x ^ x >> 16) * 0x85EBCA6B & MASK_32_BITS
    x = (x ^ x >> 13) * 0xC2B2AE35 & MASK_32_BITS
    return x ^ x >> 16
