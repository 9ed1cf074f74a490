"""Sampling parameters, and the choice of the next token from the logits of a network."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen from the logits.

    The parameters are applied in the order logit_bias, repetition_penalty, temperature, top_k,
    top_p, min_p.

    Args:
        temperature: Divisor of the logits, above 0: below 1 favors probable tokens.
        top_k: Sample from the k most probable tokens; 1 is greedy decoding.
        top_p: Sample from the smallest set of most probable tokens whose probabilities sum to at
            least this value, in (0, 1] (Holtzman et al. 2020, nucleus sampling).
        min_p: Sample from tokens of at least this fraction of the highest probability, in [0, 1]
            (Nguyen et al. 2024).
        repetition_penalty: Divisor of positive and factor of negative logits of tokens that are
            already in the text (Keskar et al. 2019); 1 has no effect.
        logit_bias: Number to add to the logit of a token, by token.
        seed: Seed of a random generator of its own, below 2^63; None: a random one.

    Raises:
        UserError: If a value is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.temperature == 0:
            raise UserError(
                "temperature must be above 0; for greedy decoding use --greedy (top_k=1)."
            )
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise UserError(f"temperature must be above 0, got {self.temperature}.")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k must be at least 1, got {self.top_k}.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be in (0, 1], got {self.top_p}.")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise UserError(f"min_p must be in [0, 1], got {self.min_p}.")
        if not (self.repetition_penalty > 0 and math.isfinite(self.repetition_penalty)):
            raise UserError(f"repetition_penalty must be above 0, got {self.repetition_penalty}.")
        for token, bias in (self.logit_bias or {}).items():
            if token < 0 or not math.isfinite(bias):
                raise UserError(
                    "logit_bias takes numbers of tokens, at least 0, and finite numbers, got "
                    f"{token}: {bias}."
                )
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise UserError(f"seed must be in 0…2^63 - 1, got {self.seed}.")

    def check_tokens(self, vocab_size: int) -> None:
        """Check that the tokens of logit_bias exist.

        Raises:
            UserError: If one does not.
        """
        if unknown := [token for token in self.logit_bias or () if token >= vocab_size]:
            raise UserError(
                f"logit_bias: the vocabulary has {vocab_size} tokens, got {unknown[0]}."
            )

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is chosen, without sampling."""
        return self.top_k == 1


class Sampler:
    """Choose the next token of each text of a batch.

    Args:
        sampling: The parameters.
        device: Device of the logits.
    """

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self.sampling = sampling
        self.generator = torch.Generator(device)
        if sampling.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(sampling.seed)

    def __call__(self, logits: Tensor, texts: Sequence[Sequence[int]]) -> list[int]:
        """Return a token for each row of logits (B, V).

        Args:
            logits: Logits of the network, (B, V).
            texts: All tokens of each text so far, prompt included.

        Raises:
            UserError: If a probability is not finite, or a token of logit_bias does not exist.
        """
        probabilities = self.probabilities(logits, texts)  # (B, V)
        if not self.sampling.greedy:
            return sample(probabilities, self.generator)
        highest, tokens = probabilities.max(dim=-1)  # (B,), (B,)
        _check_finite(highest)
        chosen: list[int] = tokens.tolist()
        return chosen

    def probabilities(self, logits: Tensor, texts: Sequence[Sequence[int]]) -> Tensor:
        """Return the probabilities (B, V) that tokens are sampled with; arguments as above.

        Greedy decoding gives probability 1 to the first of the most probable tokens.
        """
        seen = None
        if self.sampling.repetition_penalty != 1.0:
            seen = torch.zeros_like(logits, dtype=torch.bool)  # (B, V)
            for row, text in zip(seen, texts, strict=True):
                row[torch.tensor(text, device=logits.device)] = True
        shaped = shape_logits(logits.float(), self.sampling, seen)  # (B, V)
        if self.sampling.greedy:
            values, tokens = shaped.max(dim=-1, keepdim=True)  # (B, 1), (B, 1)
            one_hot = torch.zeros_like(shaped).scatter_(1, tokens, 1.0)  # (B, V)
            return one_hot.masked_fill(~values.isfinite(), torch.nan)
        return shaped.softmax(dim=-1)


def shape_logits(logits: Tensor, sampling: Sampling, seen: Tensor | None = None) -> Tensor:
    """Return the logits (B, V) of the distribution that tokens are sampled from.

    Args:
        logits: Logits of the network, (B, V).
        sampling: The parameters; tokens as probable as the k-th of top_k are kept as well.
        seen: Tokens that repetition_penalty applies to, (B, V).

    Raises:
        UserError: If a token of logit_bias is not in the vocabulary.
    """
    if sampling.logit_bias:
        sampling.check_tokens(logits.shape[-1])
        logits = logits.clone()
        for token, bias in sampling.logit_bias.items():
            logits[:, token] += bias
    penalty = sampling.repetition_penalty
    if penalty != 1.0 and seen is not None:
        penalized = torch.where(logits > 0, logits / penalty, logits * penalty)  # (B, V)
        logits = torch.where(seen, penalized, logits)  # (B, V)
    if sampling.temperature != 1.0:
        logits = logits / max(sampling.temperature, 1e-30)  # (B, V); avoids overflow
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        threshold = logits.topk(sampling.top_k).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < threshold, -torch.inf)  # (B, V)
    if sampling.top_p is not None and sampling.top_p < 1:
        ordered, order = logits.sort(descending=True)  # (B, V), (B, V)
        probabilities = ordered.softmax(dim=-1)  # (B, V)
        # Keep a token if the probabilities of the tokens before it sum to less than top_p.
        removed = probabilities.cumsum(dim=-1) - probabilities >= sampling.top_p  # (B, V)
        removed[:, 0] = False  # keep the most probable token despite rounding
        logits = logits.masked_fill(removed.scatter(1, order, removed), -torch.inf)  # (B, V)
    if sampling.min_p:
        # p < min_p · max p, in logarithms
        threshold = logits.amax(dim=-1, keepdim=True) + math.log(sampling.min_p)  # (B, 1)
        logits = logits.masked_fill(logits < threshold, -torch.inf)  # (B, V)
    return logits


def sample(probabilities: Tensor, generator: torch.Generator) -> list[int]:
    """Sample one token for each row of probabilities (B, V).

    Token k gets an exponentially distributed time with rate p_k; it has the smallest time with
    probability p_k. `torch.multinomial` samples the same tokens after checks that take longer.

    Raises:
        UserError: If a probability is not finite.
    """
    times = torch.empty_like(probabilities).exponential_(generator=generator)  # of rate 1, (B, V)
    rates, tokens = (probabilities / times).max(dim=-1)  # (B,), (B,)
    _check_finite(rates)
    sampled: list[int] = tokens.tolist()
    return sampled


def _check_finite(values: Tensor) -> None:
    if any(map(math.isnan, values.tolist())):
        raise UserError(
            "the network returned logits that are not finite (nan or inf), as after diverged "
            "training; use an earlier checkpoint or train with a lower learning rate."
        )
