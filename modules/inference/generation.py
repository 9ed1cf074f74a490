"""Continue texts with any language net: one loop for RNN states and key/value caches alike.

A prompt is read at once, then token after token; the net's state stands for what was read. Prompts
of one batch may differ in length: the shorter ones begin to answer while the longer are still read.

Past the context window: a net that has read `context` tokens starts afresh from the last half of
them. Where it starts is a function of the position alone, so a token is drawn from the same text
with and without a state, in a batch and by itself.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from modules.training.compiling import as_written


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
    """Draw the next tokens of each prompt, one step at a time.

    Args:
        net: A language net (`forward(tokens, state) -> (logits, state)`) in eval mode.
        prompts: Tokens of each prompt, at least one.
        max_new_tokens: Tokens to draw for each prompt.
        temperature: Logits are divided by it; low is bold, 1 is as trained. Above 0.
        top_k: Draw from the k likeliest tokens only.
        top_p: Draw from the smallest set of likeliest tokens whose probabilities add up to this
            (Holtzman et al. 2020, nucleus sampling), in (0, 1].
        repetition_penalty: Divide positive and multiply negative logits of tokens that stand in the
            text already (Keskar et al. 2019); 1 changes nothing.
        seed: Makes the draws repeatable, whatever else draws random numbers; below 2^63.
        cached: Keep the net's state; False reads the whole window again for each token.

    Yields:
        One list a step, with a token for each prompt; None while a longer prompt is still read, and
        None for a prompt that has all its tokens.

    Raises:
        MisconfigurationException: If an argument is out of range, a prompt is empty, or what the
            net gives is no number.
    """
    check_arguments(prompts, max_new_tokens, temperature, top_k, top_p, repetition_penalty, seed)
    device = next(net.parameters()).device
    generator = torch.Generator(device)
    generator.seed() if seed is None else generator.manual_seed(seed)
    lengths = [len(prompt) for prompt in prompts]
    texts = [list(prompt[: min(lengths)]) for prompt in prompts]
    state: Any = None
    start = read = 0  # the window begins at `start`; the state has read up to `read`
    seen: Tensor | None = None  # which tokens stand in each text, (B, V)
    for position in range(min(lengths), max(lengths) + max_new_tokens):  # of the token to come
        if cached:
            if state is None or start != window_start(position, net.context):
                start = read = window_start(position, net.context)
                state = net.init_state(len(prompts))
            logits, state = _read(net, _tensor(texts, read, device), state)
            read = position
        else:
            start = window_start(position, net.context)
            logits, _ = _read(net, _tensor(texts, start, device), None)
        last = logits[:, -1].float()  # (B, V)
        if repetition_penalty != 1.0:
            if seen is None:
                seen = torch.zeros_like(last, dtype=torch.bool)
                seen.scatter_(1, _tensor(texts, 0, device), True)
            else:
                seen.scatter_(1, _tensor(texts, position - 1, device), True)
        last = shape_logits(last, temperature, top_k, top_p, repetition_penalty, seen)
        drawn = draw(last.softmax(dim=-1), generator)
        step: list[int | None] = []
        for text, prompt, token in zip(texts, prompts, drawn, strict=True):
            reading = position < len(prompt)
            text.append(prompt[position] if reading else token)
            done = position >= len(prompt) + max_new_tokens
            step.append(None if reading or done else token)
        yield step


def window_start(position: int, context: int | None) -> int:
    """Where the text begins that the token at `position` is drawn from: it grows from half a
    window to a whole one, and then is cut to the half again."""
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
    """The logits that tokens are drawn by: softmax of them is the distribution, (B, V).

    Args:
        logits: As the net gave them, (B, V).
        temperature: See `generate`, as the next three.
        top_k: Of equally likely tokens at the border all stay.
        top_p: Applied to what top_k has left.
        repetition_penalty: Applied before all else.
        seen: Which tokens are to be penalised, (B, V).
    """
    if repetition_penalty != 1.0 and seen is not None:
        less = torch.where(logits > 0, logits / repetition_penalty, logits * repetition_penalty)
        logits = torch.where(seen, less, logits)  # (B, V)
    if temperature != 1.0:
        logits = logits / max(temperature, 1e-30)  # (B, V); a smaller one would overflow
    if top_k is not None and top_k < logits.shape[-1]:
        weakest = logits.topk(top_k).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < weakest, -torch.inf)  # (B, V)
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(descending=True)  # (B, V), (B, V)
        probabilities = ordered.softmax(dim=-1)  # (B, V)
        # Keep a token while the probabilities before it have not reached top_p yet.
        surplus = probabilities.cumsum(dim=-1) - probabilities >= top_p  # (B, V)
        surplus[:, 0] = False  # rounding never takes the likeliest
        logits = logits.masked_fill(surplus.scatter(1, order, surplus), -torch.inf)  # (B, V)
    return logits


def draw(probabilities: Tensor, generator: torch.Generator) -> list[int]:
    """One token of each text by its probabilities, (B, V).

    A race: token k takes a time that is exponential with the rate p_k, and comes in first with the
    probability p_k. `torch.multinomial` draws the same tokens, after checks that take longer.

    Raises:
        MisconfigurationException: If a probability is no number.
    """
    times = torch.empty_like(probabilities).exponential_(generator=generator)  # of rate 1, (B, V)
    speeds, tokens = (probabilities / times).max(dim=-1)  # (B,), (B,)
    if any(map(math.isnan, speeds.tolist())):
        raise MisconfigurationException(
            "the net gives logits that are no numbers (nan or inf): its weights are broken, as "
            "when training has diverged. Take an earlier checkpoint, or train with a lower rate."
        )
    drawn: list[int] = tokens.tolist()
    return drawn


def _read(net: Any, tokens: Tensor, state: Any) -> Any:
    with as_written(net):
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
    """Refuse what `generate` can't do, in one sentence.

    Raises:
        MisconfigurationException: If an argument is out of range or a prompt is empty.
    """
    wrong = {
        "the prompt is empty: give at least one token to continue": (
            not prompts or not all(len(prompt) for prompt in prompts)
        ),
        f"max_new_tokens must be 1 or more, not {max_new_tokens}": max_new_tokens < 1,
        f"temperature must be above 0, not {temperature}; 0.01 is next to certain": (
            not (temperature > 0 and math.isfinite(temperature))
        ),
        f"top_k must be 1 or more, not {top_k}": top_k is not None and top_k < 1,
        f"top_p must lie in (0, 1], not {top_p}": top_p is not None and not 0 < top_p <= 1,
        f"repetition_penalty must be above 0, not {repetition_penalty}; 1 changes nothing": (
            not (repetition_penalty > 0 and math.isfinite(repetition_penalty))
        ),
        f"seed must lie in 0…2^63 - 1, not {seed}": seed is not None and not 0 <= seed < 2**63,
    }
    for complaint, justified in wrong.items():
        if justified:
            raise MisconfigurationException(f"{complaint}.")
