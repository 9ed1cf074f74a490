"""The task of guessing hidden words of a text from what stands around them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from engine.distributed.sharding import shard
from modules.optim.schedules import configure
from modules.training.hyperparameters import save_arguments
from modules.training.sum_metric import Float32Sum
from modules.training.token_mean import TokenMean, means_over_processes
from preprocessing.special_tokens import CLS, IGNORE_INDEX, MASK, PAD, SEP, UNK

SPECIALS = (PAD, UNK, CLS, SEP, MASK)  # never hidden, never drawn
LOW = 0xFFFFFFFF  # 32 bits

Batch = tuple[dict[str, Tensor], Tensor]


class Hidden(NamedTuple):
    """Texts with some of their words hidden."""

    tokens: Tensor  # (B, T)
    places: Tensor  # (B, N): where a word has to be guessed
    targets: Tensor  # (B, N): the word; -100 where a text has fewer places


class MaskedLanguageModel(L.LightningModule):
    """Train any net whose `forward(inputs, places)` returns logits (B, N, V) of words at places.

    Of each text, `rate` of the words are to be guessed (Devlin et al. 2019): 80 % of them are
    hidden behind [MASK], 10 % behind a random word, and 10 % stay as they are, so that the net
    must have an opinion on every word. Which ones is a pure function of the number `draw` that
    comes with the text (B,) and of the place: other words in every epoch of training, the same
    ones in every validation, whatever the batch, the device or the number of processes.

    Logs `train/loss` of single batches every `trainer.log_every_n_steps` and, over all hidden words
    of the validation split, `val/loss` (nats a word), `val/perplexity` (its exponential) and
    `val/accuracy` of the likeliest word.

    Args:
        net: The architecture; its sizes come from the data.
        optimizer: Optimizer class and arguments; AdamW with lr 0.001 by default.
        lr_scheduler: Schedule class and arguments; a constant rate by default.
        rate: Share of the words of a text that are to be guessed, in (0, 1].
        tokenizer: The tokenizer as JSON, with a token [MASK]. Linked from the data.
    """

    targets_are_classes = True  # batches are (inputs, targets); forward returns logits

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        rate: float = 0.15,
        tokenizer: str | None = None,
    ) -> None:
        super().__init__()
        if not 0 < rate <= 1:
            raise ValueError(f"rate must be above 0 and at most 1, not {rate}")
        if tokenizer is None:
            raise ValueError("MaskedLanguageModel needs a tokenizer, to know which token is [MASK]")
        save_arguments(self, {k: v for k, v in locals().items() if k not in ("self", "__class__")})
        self.net = net
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.rate = rate
        self.tokenizer = Tokenizer.from_str(tokenizer)
        mask_id = self.tokenizer.token_to_id(MASK)
        if mask_id is None:
            raise ValueError(
                "MaskedLanguageModel: the tokenizer has no [MASK] to hide words behind: choose "
                "--data.tokenizer wordpiece or bert"
            )
        self.mask_id: int = mask_id
        special = {self.tokenizer.token_to_id(name) for name in SPECIALS}
        ordinary = [n for n in range(self.tokenizer.get_vocab_size()) if n not in special]
        self.register_buffer("ordinary", torch.tensor(ordinary), persistent=False)
        self.token_mean = TokenMean()
        self.val_nats = Float32Sum()
        self.val_words = Float32Sum()
        self.val_right = Float32Sum()

    def forward(self, inputs: dict[str, Tensor], places: Tensor | None = None) -> Tensor:
        """Texts to logits of every word (B, T, V), or of those at places (B, N)."""
        logits: Tensor = self.net(inputs, places)
        return logits

    def mask_tokens(self, inputs: dict[str, Tensor]) -> Hidden:
        """Hide words, on the device that the texts are on.

        Args:
            inputs: `input_ids` (B, T) and `draw` (B,), the number that decides which.
        """
        if "draw" not in inputs:
            raise MisconfigurationException(
                "MaskedLanguageModel needs data whose inputs have a number `draw` for every text, "
                "which decides what is hidden: choose --data PackedIMDB, PackedFiles or "
                "PackedSource."
            )
        ordinary: Tensor = self.ordinary  # type: ignore[assignment]
        return mask_tokens(inputs["input_ids"], inputs["draw"], ordinary, self.mask_id, self.rate)

    def _step(self, batch: Batch) -> tuple[Tensor, Tensor, Hidden, Tensor]:
        """Sum of the nats over the batch's hidden words, how many there are, and what was said."""
        inputs, _ = batch
        hidden = self.mask_tokens(inputs)
        logits = self.net(inputs | {"input_ids": hidden.tokens}, hidden.places)  # (B, N, V)
        nats = F.cross_entropy(
            logits.flatten(0, 1).float(),
            hidden.targets.flatten(),
            ignore_index=IGNORE_INDEX,
            reduction="sum",
        )
        return nats, (hidden.targets != IGNORE_INDEX).sum(), hidden, logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        nats, count, hidden, _ = self._step(batch)
        interval: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (self.global_step + 1) % interval == 0:
            (loss,) = means_over_processes(self.trainer, count, nats)
            self.log("train/loss", loss, prog_bar=True)
        return self.token_mean.loss(self, nats, count, hidden.targets.numel())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.token_mean.rescale(self)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        nats, count, hidden, logits = self._step(batch)
        self.val_nats.update(nats)
        self.val_words.update(count)
        self.val_right.update((logits.argmax(dim=-1) == hidden.targets).sum())

    def on_validation_epoch_end(self) -> None:
        words = self.val_words.compute()
        loss = self.val_nats.compute() / words
        self.log("val/loss", loss, prog_bar=True)
        self.log("val/perplexity", loss.exp())
        self.log("val/accuracy", self.val_right.compute() / words)
        for metric in (self.val_nats, self.val_words, self.val_right):
            metric.reset()

    def configure_model(self) -> None:
        shard(self)

    def configure_optimizers(self) -> Any:
        return configure(self, self.optimizer, self.lr_scheduler)

    def decode_tokens(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token, for people to read; a piece that goes on begins with "##"."""
        return [self.tokenizer.id_to_token(token) or "" for token in tokens]

    @torch.no_grad()
    def top_predictions(self, inputs: dict[str, Tensor], places: Tensor, top: int = 5) -> Any:
        """The likeliest words at places of texts.

        Args:
            inputs: As the net takes them.
            places: (B, N).
            top: How many words.

        Returns:
            Their probabilities and their tokens, both (B, N, top), the likeliest first.
        """
        training = self.training
        self.eval()
        logits = self.net(inputs, places).float()  # (B, N, V)
        self.train(training)
        return logits.softmax(dim=-1).topk(top)

    def fill_mask(self, text: str, top: int = 5) -> list[list[tuple[str, float]]]:
        """Guess the words behind each [MASK] of a text.

        Returns:
            For each [MASK] the likeliest words with their probabilities, the likeliest first.

        Raises:
            ValueError: If the text has no [MASK].
        """
        tokens = torch.tensor([self.tokenizer.encode(text).ids], device=self.device)  # (1, T)
        places = torch.eq(tokens[0], self.mask_id).nonzero().T  # (1, N)
        if not places.numel():
            raise ValueError("there is no [MASK] in the text (or it lies beyond the context)")
        found = self.top_predictions({"input_ids": tokens}, places, top)
        return [
            list(zip(self.decode_tokens(words.tolist()), p.tolist(), strict=True))
            for p, words in zip(found.values[0], found.indices[0], strict=True)
        ]


def mask_tokens(
    tokens: Tensor, draw: Tensor, ordinary: Tensor, mask_id: int, rate: float
) -> Hidden:
    """Choose words to be guessed, and put [MASK], a random word or themselves in their places.

    All shapes are fixed: N = rate · T, and what a shorter text does not fill has the target -100.

    Args:
        tokens: (B, T).
        draw: (B,), whole numbers that decide.
        ordinary: The tokens that may be hidden and drawn, sorted.
        mask_id: The token [MASK].
        rate: Share of a text's ordinary tokens that are chosen: just so many, rounded, but one.
    """
    T = tokens.shape[1]
    at = torch.searchsorted(ordinary, tokens).clamp(max=len(ordinary) - 1)  # (B, T)
    hideable = ordinary[at] == tokens  # (B, T)
    # The chosen are those with the smallest numbers; the place decides between equal ones.
    order = random_numbers(draw, T, 0) * T + torch.arange(T, device=tokens.device)  # (B, T)
    order = order.masked_fill(~hideable, (LOW + 1) * T)
    places = order.topk(max(1, round(rate * T)), largest=False).indices  # (B, N)
    there = hideable.sum(dim=1, keepdim=True)  # (B, 1)
    number = (there * rate).round().clamp(min=1).minimum(there)  # (B, 1)
    chosen = torch.arange(places.shape[1], device=tokens.device) < number  # (B, N)
    words = tokens.gather(1, places)  # (B, N)
    fate = random_numbers(draw, T, 1).gather(1, places) / (LOW + 1)  # (B, N), in [0, 1)
    others = ordinary[random_numbers(draw, T, 2).gather(1, places) % len(ordinary)]  # (B, N)
    shown = torch.where(fate < 0.9, others, words)  # (B, N)
    shown = shown.masked_fill(fate < 0.8, mask_id)
    shown = torch.where(chosen, shown, words)
    return Hidden(
        tokens.scatter(1, places, shown), places, words.masked_fill(~chosen, IGNORE_INDEX)
    )


def random_numbers(draw: Tensor, length: int, stream: int) -> Tensor:
    """Numbers 0 … 2³² - 1 that look random and are a function of (draw, place, stream) alone.

    A hash instead of a generator: the same on every device, and for any share of a batch.

    Args:
        draw: (B,), int64.
        length: T.
        stream: Which of several independent sets of numbers.

    Returns:
        (B, T), int64.
    """
    text = mixed(mixed(draw & LOW) ^ (draw >> 32 & LOW))  # (B,)
    place = torch.arange(length, device=draw.device) + (stream << 20)  # (T,)
    return mixed(mixed(text[:, None] ^ mixed(place)) + text[:, None] & LOW)  # (B, T)


def mixed(x: Tensor) -> Tensor:
    """Every bit of the result hangs on every bit of x, 32 of them: MurmurHash3's last steps.

    Appleby 2011. Products beyond 63 bits wrap around, which leaves their lower 32 as they should.
    """
    x = (x ^ x >> 16) * 0x85EBCA6B & LOW
    x = (x ^ x >> 13) * 0xC2B2AE35 & LOW
    return x ^ x >> 16
