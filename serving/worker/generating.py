"""Continuous batching: texts join and leave a batch between any two tokens.

Yu et al. 2022, "Orca: a distributed serving system for Transformer-based generative models".
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from engine.errors import UserError
from modules.inference.generation import NextLogits
from modules.inference.sampling import Sampler, Sampling
from modules.inference.streaming import TextStreamer
from serving.worker.requests import Model, Reply, Request, Sample

SAMPLING = (
    *("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "logit_bias", "seed"),
)


@dataclass(eq=False)
class Text:
    """A text that is generated."""

    sample: Sample
    tokens: list[int]  # prompt included
    choose: Sampler
    streamer: TextStreamer
    max_new_tokens: int
    matcher: Any = None  # of a grammar
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    text: str = ""

    @property
    def request(self) -> Request:
        return self.sample.request


def prepare_texts(request: Request, inputs: Sequence[Any]) -> list[Sample]:
    """Return the samples of a request to generate texts, whose values are texts to generate.

    Args:
        request: The request.
        inputs: Prompts, or the messages of conversations.

    Raises:
        UserError: If a prompt cannot be encoded or is too long, or an option is out of range.
    """
    samples = []
    for index, value in enumerate(inputs):
        sample = Sample(request, index, None, 1)
        sample.value = start_text(sample, value)
        sample.length = len(sample.value.tokens)
        samples.append(sample)
    return samples


def start_text(sample: Sample, value: Any) -> Text:
    """Encode a prompt or a conversation and check the options."""
    task, options = sample.request.model.task, sample.request.options
    stops = list(options.get("stop") or ())
    special = True
    if isinstance(value, str) and task.chat_template and options.get("chat_template"):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, str):
        value, answering = task.chat_prompt(value)
        stops += [answering["stop"]] if answering["stop"] else []
        special = answering["add_special_tokens"]
    tokens = task.encode(value or task.bos_token(), add_special_tokens=special)
    if not tokens:
        raise UserError("the prompt is empty: it must contain at least one token.")
    context = task.net.context
    if context is not None and len(tokens) > context:
        raise UserError(
            f"the prompt has {len(tokens)} tokens, but the context of the model is {context}."
        )
    given = {name: options[name] for name in SAMPLING if name in options}
    if given.get("logit_bias"):
        given["logit_bias"] = {int(token): bias for token, bias in given["logit_bias"].items()}
    sampling = Sampling(**given | {"seed": seed_of(given.get("seed"), sample.index)})
    sampling.check_tokens(task.net.vocab_size)
    schema = options.get("json_schema")
    return Text(
        sample,
        tokens,
        Sampler(sampling, task.device),
        TextStreamer(task.decode, stops),
        options["max_new_tokens"],
        None if schema is None else grammar(task, schema).matcher(),
    )


def seed_of(seed: int | None, index: int) -> int | None:
    """Return the seed of an input of a request: equal prompts do not give equal texts."""
    return None if seed is None else (seed + index) % 2**63


@lru_cache(maxsize=16)
def grammar(task: Any, schema: str) -> Any:
    """Return the grammar of texts in JSON of a schema."""
    from modules.inference.grammar import json_schema

    return task.grammar(json_schema(schema))


class Generator:
    """The texts of all language models of a worker; a step adds a token to each.

    Args:
        slots: Number of texts that are generated at the same time.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._waiting: deque[Text] = deque()
        self._active: list[Text] = []
        self._next_logits: dict[Model, NextLogits] = {}
        self._admitted = False  # texts in the last step

    def put(self, samples: Sequence[Sample]) -> None:
        self._waiting.extend(sample.value for sample in samples)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._active)

    @torch.inference_mode()
    def step(self, send: Reply) -> None:
        """Admit waiting texts into free slots and add their first token, else one to every text.

        A text that joins does not wait for another token of the others, which wait for one step
        at most: texts are not admitted in two steps that follow each other.

        Args:
            send: Reports admitted texts and the number of tokens to the server.
        """
        active = [text for text in self._active if not text.request.closed]
        admitted = [] if self._admitted and active else self._admit(self.slots - len(active))
        self._admitted = bool(admitted)
        started = sorted({text.request.number for text in admitted})
        send({"started": started, "generating": len(admitted or active)})
        self._active = [*active, *admitted]
        models = {text.request.model for text in self._active}
        self._next_logits = {
            model: self._next_logits.get(model) or NextLogits(model.task.net) for model in models
        }
        by_model: dict[Model, list[Text]] = {}
        for text in admitted or active:
            by_model.setdefault(text.request.model, []).append(text)
        for model, texts in by_model.items():
            self._extend(model, texts, new=bool(admitted))
        self._active = [
            text for text in self._active if not (text.streamer.ended or text.request.closed)
        ]

    def _admit(self, slots: int) -> list[Text]:
        """Remove and return up to that number of waiting texts."""
        admitted: list[Text] = []
        while self._waiting and len(admitted) < slots:
            text = self._waiting.popleft()
            if not text.request.closed:
                admitted.append(text)
        return admitted

    def _extend(self, model: Model, texts: list[Text], new: bool) -> None:
        """Add a token to each text of a model; a text that fails does not affect the others."""
        next_logits = self._next_logits[model]
        compute = next_logits.start if new else next_logits
        try:
            logits = compute({text: text.tokens for text in texts})  # (B, V)
        except Exception as error:
            self._next_logits[model] = NextLogits(model.task.net)  # without incomplete states
            if len(texts) == 1:
                texts[0].request.fail("internal", repr(error))
            else:
                for text in texts:
                    self._extend(model, [text], new)
            return
        for row, text in enumerate(texts):
            try:
                self._add_token(text, logits[row : row + 1])
            except UserError as error:
                finite = bool(logits[row].isfinite().any() and not logits[row].isnan().any())
                text.request.fail("invalid" if finite else "not_finite", str(error))
            except Exception as error:
                text.request.fail("internal", repr(error))

    @staticmethod
    def _add_token(text: Text, logits: Tensor) -> None:
        request, task = text.request, text.request.model.task
        shaped = logits if text.matcher is None else text.matcher.mask(logits[0])[None]
        (token,) = text.choose(shaped, [text.tokens])
        text.tokens.append(token)
        ends = token in task.end_tokens
        if text.matcher is not None and not ends:
            text.matcher.accept(token)
        streamer = text.streamer
        if ends:
            piece = streamer.end()
        else:
            last = len(streamer.tokens) + 1 == text.max_new_tokens
            piece = streamer.add(token, last)
            if text.matcher is not None and text.matcher.complete and not streamer.ended:
                piece += streamer.end()
            if "logprobs" in request.options:
                entry = logprobs_of(task, logits[0], token, request.options["logprobs"])
                text.logprobs.append(entry)
        text.text += piece
        event: dict[str, Any] = {"index": text.sample.index, "text": piece}
        if text.logprobs and not ends:
            event["logprobs"] = text.logprobs[-1]
        if streamer.ended:
            event["finish_reason"] = "stop" if streamer.stopped else "length"
        shown = piece or streamer.ended or "logprobs" in event
        if shown and request.options.get("stream") and not request.closed:
            request.reply({"id": request.number, **event})
        if streamer.ended:
            generated = len(streamer.tokens) + ends
            result = {
                "text": text.text,
                "finish_reason": event["finish_reason"],
                "tokens": generated,
                "prompt_tokens": len(text.tokens) - generated,
                **({"logprobs": text.logprobs} if "logprobs" in request.options else {}),
            }
            request.finish(text.sample.index, result)


def logprobs_of(task: Any, logits: Tensor, token: int, number: int) -> dict[str, Any]:
    """Return the log-probability of a token and those of the most probable tokens.

    Args:
        task: The language model.
        logits: (V,), before any sampling parameter.
        token: The token.
        number: How many of the most probable tokens.
    """
    values = logits.float().log_softmax(dim=-1)  # (V,)
    top = values.topk(number) if number else None

    def entry(one: int) -> dict[str, Any]:
        return {"token": task.decode([one]), "logprob": values[one].item()}

    best = [] if top is None else [entry(one) for one in top.indices.tolist()]
    return entry(token) | {"top": best}
