"""Sample text from a language model: one loop for RNN states and key/value caches.

A prompt is processed at once, then token by token; the network's state represents the tokens so
far. Prompts of a batch may differ in length: shorter ones are continued while longer ones are still
read.

Beyond the context window, the network restarts with the last half of the window. The start of the
window depends on the position only, so that sampling does not depend on caching or batching.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.errors import UserError
from modules.training.compiling import eager_mode


@torch.inference_mode()
def generate(
    net: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    cached: bool = True,
) -> Iterator[list[int | None]]:
    """Sample the next tokens of each prompt, one step at a time.

    Args:
        net: A language network (`forward(tokens, state) -> (logits, state)`) in eval mode.
        prompts: Tokens of each prompt, at least one.
        max_new_tokens: Number of tokens to sample for each prompt.
        temperature: Divisor of the logits, above 0: below 1 favors probable tokens.
        top_k: Sample from the k most probable tokens; 1 is greedy.
        top_p: Sample from the smallest set of most probable tokens whose probabilities sum to at
            least this value, in (0, 1] (Holtzman et al. 2020, nucleus sampling).
        repetition_penalty: Divisor of positive and factor of negative logits of tokens that are
            already in the text (Keskar et al. 2019); 1 has no effect.
        seed: Seed of a separate random generator, below 2^63.
        cached: Reuse the network's state; False processes the full window for each token.

    Yields:
        A token for each prompt per step; None while a longer prompt is still read, and for a prompt
        that has all its tokens.

    Raises:
        UserError: If an argument is out of range, a prompt is empty, or logits are not finite.
    """
    check_arguments(prompts, max_new_tokens, temperature, top_k, top_p, repetition_penalty, seed)
    device = next(net.parameters()).device
    generator = torch.Generator(device)
    generator.seed() if seed is None else generator.manual_seed(seed)
    lengths = [len(prompt) for prompt in prompts]
    texts = [list(prompt[: min(lengths)]) for prompt in prompts]
    state: Any = None
    start = processed = 0  # the window begins at `start`; the state includes tokens < `processed`
    seen: Tensor | None = None  # tokens that occur in each text, (B, V)
    for position in range(min(lengths), max(lengths) + max_new_tokens):  # of the next token
        if cached:
            if state is None or start != window_start(position, net.context):
                start = processed = window_start(position, net.context)
                state = net.init_state(len(prompts))
            logits, state = _forward(net, _tensor(texts, processed, device), state)
            processed = position
        else:
            start = window_start(position, net.context)
            logits, _ = _forward(net, _tensor(texts, start, device), None)
        last = logits[:, -1].float()  # (B, V)
        if repetition_penalty != 1.0:
            if seen is None:
                seen = torch.zeros_like(last, dtype=torch.bool)
                seen.scatter_(1, _tensor(texts, 0, device), True)
            else:
                seen.scatter_(1, _tensor(texts, position - 1, device), True)
        last = shape_logits(last, temperature, top_k, top_p, repetition_penalty, seen)
        sampled = sample(last.softmax(dim=-1), generator)
        step: list[int | None] = []
        for text, prompt, token in zip(texts, prompts, sampled, strict=True):
            in_prompt = position < len(prompt)
            text.append(prompt[position] if in_prompt else token)
            done = position >= len(prompt) + max_new_tokens
            step.append(None if in_prompt or done else token)
        yield step


def window_start(position: int, context: int | None) -> int:
    """Return the start of the window from which the token at `position` is predicted.

    The window grows from half the context to the full context and is then cut to half again.
    """
    if context is None or position <= context:
        return 0
    stride = context - context // 2
    return -(-(position - context) // stride) * stride


def shape_logits(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    seen: Tensor | None = None,
) -> Tensor:
    """Return the logits (B, V) of the distribution that tokens are sampled from.

    Args:
        logits: Logits of the network, (B, V).
        temperature: See `generate`, as for the next three.
        top_k: Tokens as probable as the k-th are kept as well.
        top_p: Applied after top_k.
        repetition_penalty: Applied first.
        seen: Tokens to penalize, (B, V).
    """
    if repetition_penalty != 1.0 and seen is not None:
        penalized = torch.where(
            logits > 0, logits / repetition_penalty, logits * repetition_penalty
        )  # (B, V)
        logits = torch.where(seen, penalized, logits)  # (B, V)
    if temperature != 1.0:
        logits = logits / max(temperature, 1e-30)  # (B, V); avoids overflow
    if top_k is not None and top_k < logits.shape[-1]:
        threshold = logits.topk(top_k).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < threshold, -torch.inf)  # (B, V)
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(descending=True)  # (B, V), (B, V)
        probabilities = ordered.softmax(dim=-1)  # (B, V)
        # Keep a token if the probabilities of the tokens before it sum to less than top_p.
        removed = probabilities.cumsum(dim=-1) - probabilities >= top_p  # (B, V)
        removed[:, 0] = False  # keep the most probable token despite rounding
        logits = logits.masked_fill(removed.scatter(1, order, removed), -torch.inf)  # (B, V)
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
    if any(map(math.isnan, rates.tolist())):
        raise UserError(
            "the network returned logits that are not finite (nan or inf), as after diverged "
            "training; use an earlier checkpoint or train with a lower learning rate."
        )
    sampled: list[int] = tokens.tolist()
    return sampled


def _forward(net: Any, tokens: Tensor, state: Any) -> Any:
    with eager_mode(net):
        return net(tokens, state)


def _tensor(texts: list[list[int]], start: int, device: torch.device) -> Tensor:
    return torch.tensor([text[start:] for text in texts], device=device)  # (B, T)


def check_arguments(
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
) -> None:
    """Check the arguments of `generate`.

    Raises:
        UserError: If an argument is out of range or a prompt is empty.
    """
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise UserError("the prompt is empty: it must contain at least one token.")
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens must be at least 1, got {max_new_tokens}.")
    if temperature == 0:
        raise UserError("temperature must be above 0; for greedy decoding use --greedy (top_k=1).")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise UserError(f"temperature must be above 0, got {temperature}.")
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k must be at least 1, got {top_k}.")
    if top_p is not None and not 0 < top_p <= 1:
        raise UserError(f"top_p must be in (0, 1], got {top_p}.")
    if not (repetition_penalty > 0 and math.isfinite(repetition_penalty)):
        raise UserError(f"repetition_penalty must be above 0, got {repetition_penalty}.")
    if seed is not None and not 0 <= seed < 2**63:
        raise UserError(f"seed must be in 0…2^63 - 1, got {seed}.")
