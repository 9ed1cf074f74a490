"""Continue texts with any language net: one loop for RNN states and key/value caches alike.

A prompt is read at once, then token after token; the net's state stands for what was read. Prompts
of one batch may differ in length: the shorter ones begin to answer while the longer are still read.

Past the context window: when a net has read `context` tokens it starts afresh from the last half of
them. So the text that a token is drawn from is the same with and without a state.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor


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
        seed: Makes the draws repeatable.
        cached: Keep the net's state; False reads the whole window again for each token.

    Yields:
        One list a step, with a token for each prompt; None while a longer prompt is still read, and
        None for a prompt that has all its tokens.

    Raises:
        MisconfigurationException: If an argument is out of range or a prompt is empty.
    """
    _check(prompts, max_new_tokens, temperature, top_k, top_p, repetition_penalty)
    device = next(net.parameters()).device
    generator = torch.Generator(device)
    generator.seed() if seed is None else generator.manual_seed(seed)
    shortest = min(len(prompt) for prompt in prompts)
    lengths = [len(prompt) for prompt in prompts]
    text = torch.tensor([list(prompt[:shortest]) for prompt in prompts], device=device)  # (B, T)
    state: Any = None
    start = read = 0  # the window begins at `start`; the state has read up to `read`
    while True:
        position = text.shape[1]  # of the token to come
        if all(position >= length + max_new_tokens for length in lengths):
            return
        window = getattr(net, "context", None)
        if window is not None and position - start > window:
            start = position - max(1, window // 2)
            state = None
        if not cached:
            logits, _ = net(text[:, start:])
        else:
            if state is None:
                state, read = net.init_state(len(prompts)), start
            logits, state = net(text[:, read:], state)
            read = position
        drawn = _draw(
            logits[:, -1].float(), text, temperature, top_k, top_p, repetition_penalty, generator
        )  # (B,)
        given = [p[position] if position < len(p) else None for p in prompts]
        column = [d if g is None else g for d, g in zip(drawn.tolist(), given, strict=True)]
        text = torch.cat([text, torch.tensor(column, device=device).unsqueeze(1)], dim=1)
        yield [
            token if length <= position < length + max_new_tokens else None
            for token, length in zip(column, lengths, strict=True)
        ]


def _draw(
    logits: Tensor,
    text: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    repetition_penalty: float,
    generator: torch.Generator,
) -> Tensor:
    if repetition_penalty != 1.0:
        seen = logits.gather(1, text)  # (B, T)
        seen = torch.where(seen > 0, seen / repetition_penalty, seen * repetition_penalty)
        logits = logits.scatter(1, text, seen)  # (B, V)
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        weakest = logits.topk(top_k).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < weakest, -torch.inf)
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(descending=True)
        probabilities = ordered.softmax(dim=-1)
        # Keep a token while the probabilities before it have not reached top_p yet.
        surplus = probabilities.cumsum(dim=-1) - probabilities >= top_p  # (B, V)
        logits = logits.masked_fill(surplus.scatter(1, order, surplus), -torch.inf)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator).squeeze(1)


def _check(
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    repetition_penalty: float,
) -> None:
    wrong = {
        "prompt is empty: give at least one token to continue": not prompts or not all(prompts),
        f"max_new_tokens must be 1 or more, not {max_new_tokens}": max_new_tokens < 1,
        f"temperature must be above 0, not {temperature}; 0.01 is next to certain": (
            not temperature > 0
        ),
        f"top_k must be 1 or more, not {top_k}": top_k is not None and top_k < 1,
        f"top_p must lie in (0, 1], not {top_p}": top_p is not None and not 0 < top_p <= 1,
        f"repetition_penalty must be above 0, not {repetition_penalty}": (
            not repetition_penalty > 0
        ),
    }
    for complaint, justified in wrong.items():
        if justified:
            raise MisconfigurationException(f"{complaint}.")
