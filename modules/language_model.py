"""The task of predicting the next token of a text."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from torch.nn import functional as F

from engine.distributed.sharding import shard
from modules.inference.generation import generate
from modules.inference.streaming import Pieces
from modules.optim.schedules import configure
from modules.training.compiling import as_written, compile_net
from modules.training.hyperparameters import save_arguments
from modules.training.sum_metric import Float32Sum
from modules.training.token_mean import TokenMean, means_over_processes
from preprocessing.byte_level import BYTE_OF_LETTER
from preprocessing.special_tokens import IGNORE_INDEX


class SumOfNats(nn.Module):
    """Cross-entropy in float32, summed over the targets that count.

    Compiled, it casts while it sums. As written, a GPU keeps a copy of the logits in float32 and
    their softmax besides, which with GPT-2's 50,257 tokens takes a good part of a step.
    """

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (B, T, V) and targets (B, T) to nats, a scalar."""
        return F.cross_entropy(
            logits.flatten(0, 1).float(),
            targets.flatten(),
            ignore_index=IGNORE_INDEX,
            reduction="sum",
        )


class LanguageModel(L.LightningModule):
    """Train any net whose `forward(tokens, state=None)` returns `(logits (B, T, V), state)`.

    Logs `train/loss` of single batches every `trainer.log_every_n_steps` and, over the whole
    validation split, `val/loss` (nats a token), `val/perplexity` (its exponential) and
    `val/bits_per_character`.

    The gradient of a step is that of the mean over all its tokens, however they are spread over
    accumulated batches and processes, with padding (target -100) counting for nothing.

    Args:
        net: The architecture; its sizes come from the data.
        optimizer: Optimizer class and arguments; AdamW with lr 0.001 by default.
        lr_scheduler: Schedule class and arguments; a constant rate by default.
        compile: Compile the net for training (`net.compile()`), and its loss: seconds or minutes at
            the start, then faster. What is evaluated, or writes text, is the net as written. For a
            CPU that takes a C++ compiler; without one the net stays as it is, and says so.
        tokenizer: The tokenizer as JSON, so that a checkpoint reads and writes text by itself.
            Linked from the data.
    """

    targets_are_classes = True  # batches are (inputs, targets); forward returns logits

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        compile: bool = False,
        tokenizer: str | None = None,
    ) -> None:
        super().__init__()
        save_arguments(self, {k: v for k, v in locals().items() if k not in ("self", "__class__")})
        self.net = net
        self.nats = SumOfNats()
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.compiles = compile
        self.tokenizer = None if tokenizer is None else Tokenizer.from_str(tokenizer)
        self.val_nats = Float32Sum()
        self.val_tokens = Float32Sum()
        self.val_characters = Float32Sum()
        lengths = torch.ones(1, dtype=torch.int64)
        if self.tokenizer is not None:
            lengths = characters_per_token(self.tokenizer)
        self.register_buffer("token_lengths", lengths, persistent=False)  # (V,)
        self.token_mean = TokenMean()

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Tokens (B, T) to logits (B, T, V); see modules/nets/bigram.py for the state."""
        result: tuple[Tensor, Any] = self.net(tokens, state)
        return result

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.compiles:
            compile_net(self, self.nats)

    def _step(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Sum of the nats over the batch's targets, and how many there are."""
        tokens, targets = batch
        logits, _ = self.net(tokens)  # (B, T, V)
        return self.nats(logits, targets), (targets != IGNORE_INDEX).sum()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        nats, count = self._step(batch)
        interval: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (self.global_step + 1) % interval == 0:
            (loss,) = means_over_processes(self.trainer, count, nats)
            self.log("train/loss", loss, prog_bar=True)
        return self.token_mean.loss(self, nats, count, batch[1].numel())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.token_mean.rescale(self)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch)

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def _evaluate(self, batch: tuple[Tensor, Tensor]) -> None:
        with as_written(self.net):
            nats, count = self._step(batch)
        targets = batch[1]
        self.val_nats.update(nats)
        self.val_tokens.update(count)
        if self.tokenizer is not None:
            lengths: Tensor = self.token_lengths  # type: ignore[assignment]
            self.val_characters.update(lengths[targets[targets != IGNORE_INDEX]].sum())

    def _log_evaluation(self, stage: str) -> None:
        nats, tokens = self.val_nats.compute(), self.val_tokens.compute()
        loss = nats / tokens
        self.log(f"{stage}/loss", loss, prog_bar=True)
        self.log(f"{stage}/perplexity", loss.exp())
        if self.tokenizer is not None:
            bits = nats / math.log(2)
            self.log(f"{stage}/bits_per_character", bits / self.val_characters.compute())
        for metric in (self.val_nats, self.val_tokens, self.val_characters):
            metric.reset()

    def configure_model(self) -> None:
        shard(self)

    def configure_optimizers(self) -> Any:
        return configure(self, self.optimizer, self.lr_scheduler)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text.

        Raises:
            MisconfigurationException: Naming the characters that the tokenizer has never seen.
        """
        tokenizer = self._tokenizer()
        if isinstance(tokenizer.model, models.WordLevel):
            unseen = sorted({c for c in text if tokenizer.token_to_id(c) is None})
            if unseen:
                named = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in unseen[:10])
                raise MisconfigurationException(
                    f"the tokenizer has never seen: {named}{', …' if len(unseen) > 10 else ''}. "
                    f"It knows the {tokenizer.get_vocab_size()} characters of the text that it was "
                    "made of. Leave the others out, or train with --data.tokenizer bpe, which "
                    "spells any text."
                )
        ids: list[int] = tokenizer.encode(text).ids
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        text: str = self._tokenizer().decode(list(tokens), skip_special_tokens=False)
        return text

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise MisconfigurationException(
                "this LanguageModel was built without `tokenizer`: it takes tokens, not text."
            )
        return self.tokenizer

    def stream(
        self,
        prompts: Sequence[str],
        max_new_tokens: int = 200,
        stop: str | None = None,
        **sampling: Any,
    ) -> Iterator[list[str]]:
        """Continue texts piece by piece.

        Args:
            prompts: Texts to continue, at least one token each.
            max_new_tokens: Tokens to draw for each.
            stop: End a text before this string.
            **sampling: temperature, top_k, top_p, repetition_penalty, seed, cached: see
                modules/inference/generation.py.

        Yields:
            What is new of each text; pieces are whole characters.
        """
        encoded = [self.encode(prompt) for prompt in prompts]
        texts = [Pieces(self.decode, stop) for _ in prompts]
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            for step in generate(self.net, encoded, max_new_tokens, **sampling):
                yield [
                    ""
                    if token is None or text.ended
                    else text.add(token, last=len(text.tokens) + 1 == max_new_tokens)
                    for text, token in zip(texts, step, strict=True)
                ]
                if all(text.ended for text in texts):
                    return
        finally:
            for module, training in modes:
                module.training = training

    def generate(
        self, prompt: str | Sequence[str], max_new_tokens: int = 200, **options: Any
    ) -> str | list[str]:
        """Continue one text, or several at once; the arguments are those of `stream`.

        Returns:
            The continuation without the prompt; a list of them for several prompts.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        texts = [""] * len(prompts)
        for pieces in self.stream(prompts, max_new_tokens, **options):
            texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
        return texts[0] if isinstance(prompt, str) else texts


def characters_per_token(tokenizer: Tokenizer) -> Tensor:
    """Characters that each token adds to a text, (V,): a token may be half a character, or nine.

    A character is counted where its first byte is: UTF-8's other bytes are 10xxxxxx.
    """
    size = tokenizer.get_vocab_size()
    if isinstance(tokenizer.model, models.WordLevel):
        return torch.ones(size, dtype=torch.int64)
    names = [tokenizer.id_to_token(token) or "" for token in range(size)]
    return torch.tensor(
        [sum(BYTE_OF_LETTER.get(c, 0) & 0xC0 != 0x80 for c in name) for name in names]
    )
