"""LightningModule for language modeling: predict the next token of a text."""

import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from tokenizers import Tokenizer, decoders, models
from torch import Tensor, nn

from engine.distributed.sharding import shard
from engine.errors import UserError
from engine.eval_mode import eval_mode
from modules.adapters.methods import Adapter
from modules.adapters.task import AdapterTask
from modules.inference.beam_search import continue_with_beams
from modules.inference.generation import generate
from modules.inference.grammar import Grammar
from modules.inference.sampling import Sampling
from modules.inference.speculative import speculate
from modules.inference.streaming import TextStreamer
from modules.optim.schedules import configure
from modules.training.compiling import compile_net, eager_mode
from modules.training.gradients import TokenMeanGradient, mean_over_processes, should_log
from modules.training.hyperparameters import save_arguments
from modules.training.metrics import (
    BitsPerCharacter,
    MeanLoss,
    Perplexity,
    log_metrics,
    stage_metrics,
)
from modules.training.token_loss import TokenLoss
from preprocessing.byte_level import BYTE_OF_LETTER
from preprocessing.chat import Message, end_of_turn, render
from preprocessing.special_tokens import END_OF_TEXT, IGNORE_INDEX, remove_special_tokens

BOS_TOKENS = ("<|begin_of_text|>", "<s>", "<bos>", "[BOS]", END_OF_TEXT)
SPECIAL_TOKENS = (*BOS_TOKENS, "</s>", "<eos>", "<|end_of_text|>")
BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")  # SentencePiece's spelling of a single byte
Packed = dict[str, Tensor]  # input_ids and documents, both (B, T)
Batch = tuple[Tensor | Packed, Tensor]


class LanguageModel(AdapterTask):
    """Train a network whose `forward(tokens, state=None)` returns `(logits (B, T, V), state)`.

    Logs `train/loss` of single batches every `trainer.log_every_n_steps` and, over the full
    validation or test split, `loss` (nats per token), `perplexity` (its exponential) and
    `bits_per_character`.

    Inputs are tokens (B, T), or for samples packed into rows `{"input_ids", "documents"}`, both
    (B, T), which requires a network whose forward takes `documents`, as that of modules.nets.GPT.

    The gradient of a step is that of the mean over all its tokens, regardless of how they are
    distributed over accumulated batches and processes; padding (target -100) is excluded.

    Args:
        net: The network; its sizes come from the data.
        optimizer: Optimizer class and arguments; AdamW with lr 0.001 by default.
        lr_scheduler: Schedule class and arguments; a constant learning rate by default.
        compile: Compile the network and the loss for training (`net.compile()`): seconds or minutes
            at the start, faster steps afterwards. Evaluation and generation run eagerly. On a CPU
            this requires a C++ compiler.
        tokenizer: The tokenizer as JSON, so that a checkpoint alone encodes and decodes text.
            Linked from the data.
        chat_template: Jinja template of conversations, for `chat`. Linked from the data.
        adapter: What to train while the other weights of the network are frozen, such as
            modules.adapters.LoRA; all weights are trained by default.
        loss_chunk_size: Compute output layer and loss for this many tokens at a time, and again in
            the backward pass: far less memory with a large vocabulary, for one more product with
            the output matrix. For modules.nets.GPT and PretrainedCausalLM; all at once by default.

    Raises:
        UserError: If loss_chunk_size is below 1, or the network does not support it.
    """

    targets_are_classes = True  # batches are (inputs, targets); forward returns logits
    end_tokens: frozenset[int] = frozenset()  # tokens at which a generated text ends

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        compile: bool = False,
        tokenizer: str | None = None,
        chat_template: str | None = None,
        adapter: Adapter | None = None,
        loss_chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        save_arguments(self)
        check_loss_chunk_size(loss_chunk_size, net)
        self.loss_chunk_size = loss_chunk_size
        self.set_net(net, adapter)
        self.token_loss = TokenLoss()
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.compile_enabled = compile
        self.chat_template = chat_template
        self.tokenizer = None if tokenizer is None else Tokenizer.from_str(tokenizer)
        if self.tokenizer is not None:  # some vocabularies contain special tokens as plain words
            known = [t for t in SPECIAL_TOKENS if self.tokenizer.token_to_id(t) is not None]
            self.tokenizer.add_special_tokens(known)
        metrics: dict[str, Any] = {"loss": MeanLoss(), "perplexity": Perplexity()}
        lengths = torch.ones(1, dtype=torch.int64)
        if self.tokenizer is not None:
            metrics["bits_per_character"] = BitsPerCharacter()
            lengths = characters_per_token(self.tokenizer)
        self.register_buffer("token_lengths", lengths, persistent=False)  # (V,)
        self.metrics = stage_metrics(metrics)
        self.gradient = TokenMeanGradient()

    def forward(self, inputs: Tensor | Packed, state: Any = None) -> tuple[Tensor, Any]:
        """Return logits (B, T, V) and the state; modules/nets/bigram.py explains the state.

        Args:
            inputs: Tokens (B, T), or `{"input_ids", "documents"}` of packed samples, both (B, T).
            state: State after earlier tokens.

        Raises:
            UserError: If the network cannot separate packed samples.
        """
        result: tuple[Tensor, Any] = self.net(*self._arguments(inputs, state))
        return result

    def _arguments(self, inputs: Tensor | Packed, state: Any = None) -> tuple[Any, ...]:
        """Return the arguments of the network's forward for the inputs of a batch."""
        if isinstance(inputs, Tensor):
            return inputs, state
        if "documents" not in inspect.signature(self.net.forward).parameters:
            raise UserError(
                f"{type(self.net).__name__} cannot separate the samples that these data pack into "
                "one row: choose a Transformer, such as --model.net modules.nets.GPT."
            )
        return inputs["input_ids"], state, inputs["documents"]

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.compile_enabled:
            compile_net(self, self.token_loss)

    def _step(self, batch: Batch, stage: str) -> tuple[Tensor, Tensor]:
        """Return the summed loss of a batch in nats and the number of its targets."""
        inputs, targets = batch
        if self.loss_chunk_size is None:
            logits, _ = self(inputs)  # (B, T, V)
            nats = self.token_loss(logits, targets)
        else:
            chunks = {"targets": targets, "loss_chunk_size": self.loss_chunk_size}
            nats, _ = self.net(*self._arguments(inputs), **chunks)
        count = (targets != IGNORE_INDEX).sum()
        if stage != "train":
            characters: Any = 0
            if self.tokenizer is not None:
                lengths: Tensor = self.token_lengths  # type: ignore[assignment]
                characters = lengths[targets[targets != IGNORE_INDEX]].sum()
            self.metrics[stage].update(  # type: ignore[operator]
                loss=nats, count=count, characters=characters
            )
        return nats, count

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        nats, count = self._step(batch, "train")
        if should_log(self):
            (loss,) = mean_over_processes(self.trainer, count, nats)
            self.log("train/loss", loss, prog_bar=True)
        return self.gradient.loss(self, nats, count, batch[1].numel())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.gradient.rescale(self)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        with eager_mode(self.net):
            self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        with eager_mode(self.net):
            self._step(batch, "test")

    def on_validation_epoch_end(self) -> None:
        log_metrics(self, "val")

    def on_test_epoch_end(self) -> None:
        log_metrics(self, "test")

    def configure_model(self) -> None:
        shard(self)

    def configure_optimizers(self) -> Any:
        return configure(self, self.optimizer, self.lr_scheduler)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the tokens of a text; special tokens such as `<|endoftext|>` are read as such.

        Args:
            text: A text.
            add_special_tokens: Add those of the tokenizer, such as a beginning-of-sequence token.

        Raises:
            UserError: If the text has characters that are not in the vocabulary.
        """
        tokenizer = self._tokenizer()
        if isinstance(tokenizer.model, models.WordLevel):
            unknown = sorted({c for c in text if tokenizer.token_to_id(c) is None})
            if unknown:
                listed = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in unknown[:10])
                raise UserError(
                    f"characters that are not in the vocabulary: {listed}"
                    f"{', …' if len(unknown) > 10 else ''}. The vocabulary consists of the "
                    f"{tokenizer.get_vocab_size()} characters of the training text; remove the "
                    f"others, "
                    "or train with --data.tokenizer bpe, which encodes any text."
                )
        ids: list[int] = tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""
        text: str = self._tokenizer().decode(list(tokens), skip_special_tokens=False)
        return text

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise UserError(
                "this LanguageModel was trained without `tokenizer`: it takes tokens instead of "
                "text."
            )
        return self.tokenizer

    def stream(
        self,
        prompts: Sequence[str],
        max_new_tokens: int = 200,
        stop: str | Sequence[str] | None = None,
        add_special_tokens: bool = True,
        cached: bool = True,
        grammar: str | None = None,
        draft: "LanguageModel | None" = None,
        **sampling: Any,
    ) -> Iterator[list[str]]:
        """Continue texts and yield the new text of each step.

        Args:
            prompts: Texts to continue, of at least one token each. An empty prompt is replaced by
                the beginning-of-sequence token where the tokenizer has one.
            max_new_tokens: Number of tokens to sample for each prompt.
            stop: End a text before this string, or before the first of several.
            add_special_tokens: See `encode`.
            cached: Reuse the network's state; False processes the full window for each token.
            grammar: What the new text has to match, from `json_schema` or `regex` of
                modules/inference/grammar.py.
            draft: A smaller model with the same tokenizer, for speculative decoding.
            **sampling: temperature, top_k, top_p, min_p, repetition_penalty, logit_bias and seed;
                see modules/inference/sampling.py.

        Yields:
            The new part of each text, in whole characters.

        Raises:
            UserError: If an option is out of range or does not fit the model.
        """
        encoded = self._encode_prompts(prompts, add_special_tokens)
        streamers = [TextStreamer(self.decode, stop) for _ in prompts]
        with eval_mode(self.net):
            for tokens in self._tokens(encoded, max_new_tokens, cached, grammar, draft, sampling):
                yield [
                    ""
                    if streamer.ended
                    else streamer.end()
                    if token is None or token in self.end_tokens
                    else streamer.add(token, last=len(streamer.tokens) + 1 == max_new_tokens)
                    for streamer, token in zip(streamers, tokens, strict=True)
                ]
                if all(streamer.ended for streamer in streamers):
                    return
            if not all(streamer.ended for streamer in streamers):  # complete by the grammar
                yield ["" if streamer.ended else streamer.end() for streamer in streamers]

    def _encode_prompts(self, prompts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        return [self.encode(prompt or self.bos_token(), add_special_tokens) for prompt in prompts]

    def _tokens(
        self,
        prompts: list[list[int]],
        max_new_tokens: int,
        cached: bool,
        grammar: str | None,
        draft: "LanguageModel | None",
        sampling: dict[str, Any],
    ) -> Iterator[Sequence[int | None]]:
        """Yield a token for each prompt per step; arguments as of `stream`."""
        choice = Sampling(**sampling)
        if draft is None:
            matched = grammar and self.grammar(grammar)
            yield from generate(
                self.net, prompts, max_new_tokens, choice, cached, grammar=matched or None
            )
            return
        if grammar is not None:
            raise UserError("speculative decoding does not support JSON schemas and --regex.")
        if draft.tokenizer is None or draft.tokenizer.get_vocab() != self._tokenizer().get_vocab():
            raise UserError("the draft has another tokenizer than the model.")
        with eval_mode(draft.net):
            steps = [
                speculate(self.net, draft.net, prompt, max_new_tokens, choice) for prompt in prompts
            ]
            yield from zip(*steps, strict=True)

    def grammar(self, definition: str) -> Grammar:
        """Return a grammar for the tokens of this model; see `stream`."""
        size: int = self.net.vocab_size  # type: ignore[assignment]
        return Grammar(definition, self._tokenizer(), size, self.end_tokens)

    def beam_search(
        self,
        prompt: str,
        max_new_tokens: int = 200,
        beam_size: int = 5,
        length_penalty: float = 0.0,
        stop: str | None = None,
        add_special_tokens: bool = True,
    ) -> str:
        """Return the most probable continuation of a text that beam search finds.

        Args:
            prompt: See `stream`.
            max_new_tokens: Maximum number of tokens.
            beam_size: Number of hypotheses that are kept at each step; 1 is greedy decoding.
            length_penalty: Exponent of the length penalty, which favors longer texts; 0: none.
            stop: Cut the text before this string.
            add_special_tokens: See `encode`.

        Raises:
            UserError: If an option is out of range, or the text exceeds the context.
        """
        (tokens,) = self._encode_prompts([prompt], add_special_tokens)
        with eval_mode(self.net):
            found = continue_with_beams(
                self.net, tokens, max_new_tokens, self.end_tokens, beam_size, length_penalty
            )
        text = self.decode(found)
        return text.partition(stop)[0] if stop else text

    def bos_token(self) -> str:
        """Return the beginning-of-sequence token as text, or "" if the tokenizer has none."""
        tokenizer = self._tokenizer()
        found = (token for token in BOS_TOKENS if tokenizer.token_to_id(token) is not None)
        return next(found, "")

    def generate(
        self, prompt: str | Sequence[str], max_new_tokens: int = 200, **options: Any
    ) -> str | list[str]:
        """Continue one text or several; the arguments are those of `stream`.

        Returns:
            The continuation without the prompt; a list of continuations for several prompts.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        texts = [""] * len(prompts)
        for pieces in self.stream(prompts, max_new_tokens, **options):
            texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
        return texts[0] if isinstance(prompt, str) else texts

    def chat(self, messages: Sequence[Message], max_new_tokens: int = 200, **sampling: Any) -> str:
        """Return the assistant's answer to a conversation.

        Args:
            messages: `{"role", "content"}` of each message so far; the roles are system, user and
                assistant.
            max_new_tokens: Maximum number of tokens of the answer.
            **sampling: See `stream`.

        Raises:
            UserError: If there is no chat template, or it rejects the messages.
        """
        prompt, options = self.chat_prompt(messages)
        return str(self.generate(prompt, max_new_tokens, **options | sampling)).strip()

    def chat_prompt(self, messages: Sequence[Message]) -> tuple[str, dict[str, Any]]:
        """Return the text of a conversation and the options with which `stream` answers it.

        Special tokens in messages are left out: only the template marks turns.

        Args:
            messages: As for `chat`.

        Raises:
            UserError: If there is no chat template, or it rejects the messages.
        """
        if self.chat_template is None:
            raise UserError(
                "this LanguageModel has no chat template: fine-tune it on conversations, as with "
                "--data datamodules.Instructions."
            )
        tokenizer = self._tokenizer()
        messages = [
            {**message, "content": remove_special_tokens(message["content"], tokenizer)}
            for message in messages
        ]
        try:
            prompt = render(self.chat_template, messages, add_generation_prompt=True)
            stop = end_of_turn(self.chat_template)
        except ValueError as error:
            raise UserError(f"{error}.") from error
        return prompt, {"stop": stop, "add_special_tokens": False}


def check_loss_chunk_size(size: int | None, net: nn.Module) -> None:
    """Check that a network computes its loss in chunks, if there are any.

    Raises:
        UserError: If it does not, or the size is below 1.
    """
    if size is None:
        return
    if size < 1:
        raise UserError(f"model.loss_chunk_size must be at least 1, got {size}.")
    if "loss_chunk_size" not in inspect.signature(net.forward).parameters:
        raise UserError(
            f"{type(net).__name__} does not support model.loss_chunk_size: leave it out, or choose "
            "--model.net modules.nets.GPT."
        )


def characters_per_token(tokenizer: Tokenizer) -> Tensor:
    """Return how many characters each token adds to a text, (V,).

    A token may be a part of a character: a character is counted where its first byte is, since the
    other bytes of UTF-8 have the form 10xxxxxx.
    """
    size = tokenizer.get_vocab_size()
    if isinstance(tokenizer.model, models.WordLevel):
        return torch.ones(size, dtype=torch.int64)
    byte_level = isinstance(tokenizer.decoder, decoders.ByteLevel)
    lengths = []
    for token in range(size):
        name = tokenizer.id_to_token(token) or ""
        if BYTE_TOKEN.fullmatch(name):
            lengths.append(int(int(name[3:5], 16) & 0xC0 != 0x80))
        elif byte_level:
            lengths.append(sum(BYTE_OF_LETTER.get(c, 0) & 0xC0 != 0x80 for c in name))
        else:
            lengths.append(len(name))
    return torch.tensor(lengths)
