"""Sample text from a language model: one loop for RNN states and key/value caches.

A prompt is processed at once, then token by token; the network's state represents the tokens so
far. Prompts of a batch may differ in length: shorter ones are continued while longer ones are still
read.

Beyond the context window, the network restarts with the last half of the window. The start of the
window depends on the position only, so that sampling does not depend on caching or batching.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.errors import UserError
from modules.inference.sampling import Sampler, Sampling
from modules.training.compiling import eager_mode


@torch.inference_mode()
def generate(
    net: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    cached: bool = True,
) -> Iterator[list[int | None]]:
    """Sample the next tokens of each prompt, one step at a time.

    Args:
        net: A language network (`forward(tokens, state) -> (logits, state)`) in eval mode.
        prompts: Tokens of each prompt, at least one.
        max_new_tokens: Number of tokens to sample for each prompt.
        sampling: How tokens are chosen; at random from the probabilities of the network by default.
        cached: Reuse the network's state; False processes the full window for each token.

    Yields:
        A token for each prompt per step; None while a longer prompt is still read, and for a prompt
        that has all its tokens.

    Raises:
        UserError: If max_new_tokens is out of range, a prompt is empty, or logits are not finite.
    """
    check_prompts(prompts, max_new_tokens)
    device = next(net.parameters(), torch.empty(0)).device  # a network without any is on the CPU
    choose = Sampler(sampling or Sampling(), device)
    lengths = [len(prompt) for prompt in prompts]
    texts = [list(prompt[: min(lengths)]) for prompt in prompts]
    state: Any = None
    start = processed = 0  # the window begins at `start`; the state includes tokens < `processed`
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
        sampled = choose(logits[:, -1], texts)
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


def _forward(net: Any, tokens: Tensor, state: Any) -> Any:
    with eager_mode(net):
        return net(tokens, state)


def _tensor(texts: list[list[int]], start: int, device: torch.device) -> Tensor:
    return torch.tensor([text[start:] for text in texts], device=device)  # (B, T)


def check_prompts(prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Check the arguments of `generate`.

    Raises:
        UserError: If max_new_tokens is out of range or a prompt is empty.
    """
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise UserError("the prompt is empty: it must contain at least one token.")
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens must be at least 1, got {max_new_tokens}.")
