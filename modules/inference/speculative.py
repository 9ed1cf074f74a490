"""Speculative decoding: a small draft network proposes tokens that the network checks at once.

Leviathan et al. 2023, "Fast inference from Transformers via speculative decoding", algorithm 1. A
proposal x with probability q(x) under the draft and p(x) under the network is accepted with
probability min(1, p(x) / q(x)); after the first rejection the token is sampled from
norm(max(0, p - q)). The tokens have the distribution of plain decoding, and greedy decoding gives
the same tokens.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.errors import UserError
from modules.inference.generation import check_prompts, device_of, forward, window_start
from modules.inference.sampling import Sampler, Sampling, sample


@torch.inference_mode()
def speculate(
    net: Any,
    draft: Any,
    prompt: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    proposals: int = 4,
) -> Iterator[int]:
    """Sample the next tokens of a prompt.

    Args:
        net: A language network whose state can be truncated (Transformers and bigrams), in eval
            mode.
        draft: A smaller one with the same vocabulary.
        prompt: Tokens of the prompt, at least one.
        max_new_tokens: Number of tokens to sample.
        sampling: How tokens are chosen, as for `generate`.
        proposals: Number of tokens that the draft proposes at a time.

    Yields:
        The tokens.

    Raises:
        UserError: If an argument is out of range or does not fit, or logits are not finite.
    """
    check_prompts([prompt], max_new_tokens)
    check_draft(net, draft)
    if proposals < 1:
        raise UserError(f"proposals must be at least 1, got {proposals}.")
    device = device_of(net)
    sampler = Sampler(sampling or Sampling(), device)
    reader, drafter = WindowLogits(net), WindowLogits(draft)
    text = list(prompt)
    end = len(prompt) + max_new_tokens
    while len(text) < end:
        # All positions that are checked together must have the same window.
        start = window_start(len(text), net.context)
        limit = min(proposals, end - len(text) - 1)
        while window_start(len(text) + limit, net.context) != start:
            limit -= 1
        proposed: list[int] = []
        q: list[Tensor] = []
        for _ in range(limit):
            q.append(sampler.probabilities(drafter(text + proposed, 1), [text + proposed])[0])
            proposed += sample(q[-1][None], sampler.generator)
        logits = reader(text + proposed, limit + 1)  # (limit + 1, V)
        texts = [text + proposed[:n] for n in range(limit + 1)]
        p = sampler.probabilities(logits, texts)  # (limit + 1, V)
        accepted = _accept(p, q, proposed, sampler.generator)
        yield from accepted
        text += accepted


def check_draft(net: Any, draft: Any) -> None:
    """Check that a draft network fits.

    Raises:
        UserError: If the vocabularies differ, or a state cannot be truncated.
    """
    if net.vocab_size != draft.vocab_size:
        raise UserError(
            f"the draft has {draft.vocab_size} tokens and the network {net.vocab_size}: "
            "speculative decoding needs two models with one vocabulary."
        )
    for part in (net, draft):
        if not hasattr(part, "truncate_state"):
            raise UserError(
                f"speculative decoding is not possible with {type(part).__name__}, whose state "
                "cannot be truncated; it takes Transformers."
            )


def _accept(
    p: Tensor, q: list[Tensor], proposed: list[int], generator: torch.Generator
) -> list[int]:
    """Return the accepted proposals and one more token; p is (n + 1, V), q n tensors (V,)."""
    accepted: list[int] = []
    for row, (token, draft) in enumerate(zip(proposed, q, strict=True)):
        u = torch.rand((), generator=generator, device=p.device)
        if u * draft[token] >= p[row, token]:
            # norm(max(0, p - q)); `sample` needs no normalization
            return accepted + sample((p[row] - draft).clamp(min=0)[None], generator)
        accepted.append(token)
    return accepted + sample(p[-1:], generator)


class WindowLogits:
    """Compute logits of the last positions of a text, which may change from call to call.

    Args:
        net: A language network in eval mode, whose state can be truncated.
    """

    def __init__(self, net: Any) -> None:
        self.net = net
        self.state: Any = None
        self.start = 0  # of the window
        self.processed: list[int] = []  # tokens in the state

    def __call__(self, text: Sequence[int], count: int) -> Tensor:
        """Return the logits of the tokens after the last `count` positions, (count, V).

        Args:
            text: All tokens so far.
            count: All of these positions are in the window of the first one.
        """
        start = window_start(len(text) - count + 1, self.net.context)
        if self.state is None or start != self.start:
            self.start, self.processed, self.state = start, [], self.net.init_state(1)
        window = list(text[start:])
        shared = 0
        for old, new in zip(self.processed, window[: len(window) - count], strict=False):
            if old != new:
                break
            shared += 1
        self.state = self.net.truncate_state(self.state, shared)
        logits, self.state = forward(self.net, [window[shared:]], self.state)
        self.processed = window
        return logits[0, -count:]
