"""Sample text from a language model: one loop for RNN states and key/value caches.

The prompts of a batch may differ in length. Each is processed at once, a prefix that all of them
share only once; then the states are joined, and all texts grow by a token per step.

Beyond the context window, the network restarts with the last half of the window. The start of the
window depends on the position only, so that sampling does not depend on caching or batching.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from engine.errors import UserError
from modules.inference.grammar import Grammar
from modules.inference.sampling import Sampler, Sampling
from modules.training.compiling import eager_mode

Group = tuple[list[Hashable], Any]  # texts that are one batch, and their state


@dataclass(frozen=True)
class Prefix:
    """Tokens that several prompts begin with, and the state of the network after them."""

    tokens: list[int]
    state: Any


@torch.inference_mode()
def generate(
    net: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    cached: bool = True,
    prefix: Prefix | None = None,
    grammar: Grammar | None = None,
) -> Iterator[list[int | None]]:
    """Sample the next tokens of each prompt, one step at a time.

    Args:
        net: A language network (`forward(tokens, state) -> (logits, state)`) in eval mode.
        prompts: Tokens of each prompt, at least one.
        max_new_tokens: Number of tokens to sample for each prompt.
        sampling: How tokens are chosen; at random from the probabilities of the network by default.
        cached: Reuse the network's state; False processes the full window for each token.
        prefix: From `process_prefix`, for prompts that begin with it. By default what the prompts
            of this batch have in common is processed once.
        grammar: What the new tokens of each prompt have to match.

    Yields:
        A token for each prompt per step; None for a text that is complete by the grammar.

    Raises:
        UserError: If max_new_tokens is out of range, a prompt is empty, or logits are not finite.
    """
    check_prompts(prompts, max_new_tokens)
    choose = Sampler(sampling or Sampling(), device_of(net))
    texts = [list(prompt) for prompt in prompts]
    if cached and prefix is None and len(texts) > 1 and hasattr(net, "reorder_state"):
        prefix = process_prefix(net, common_prefix(texts, net.context))
    next_logits = NextLogits(net, cached, prefix)
    matchers = [] if grammar is None else [grammar.matcher() for _ in texts]
    for _ in range(max_new_tokens):
        logits = next_logits(dict(enumerate(texts)))  # (B, V)
        if matchers:
            logits = torch.stack([m.mask(row) for m, row in zip(matchers, logits, strict=True)])
        tokens = choose(logits, texts)
        for text, token in zip(texts, tokens, strict=True):
            text.append(token)
        complete = [matcher.complete for matcher in matchers] or [False] * len(texts)
        yield [None if done else token for done, token in zip(complete, tokens, strict=True)]
        for matcher, token in zip(matchers, tokens, strict=False):
            matcher.accept(token)
        if matchers and all(matcher.complete for matcher in matchers):
            return


def common_prefix(texts: Sequence[Sequence[int]], context: int | None = None) -> list[int]:
    """Return the tokens that all texts begin with, except for the last token of each text.

    Args:
        texts: At least one text.
        context: Empty if a text is longer than this.
    """
    if context is not None and max(map(len, texts)) > context:
        return []
    columns = zip(*(text[:-1] for text in texts), strict=False)
    return [column[0] for column in takewhile(lambda column: len({*column}) == 1, columns)]


@torch.inference_mode()
def process_prefix(net: Any, tokens: Sequence[int]) -> Prefix | None:
    """Return a prefix for `generate`; None if there are no tokens.

    Args:
        net: A language network with `reorder_state`, in eval mode.
        tokens: At most as many as the context of the network.
    """
    if not tokens:
        return None
    _, state = forward(net, [tokens], net.init_state(1))
    return Prefix(list(tokens), state)


class NextLogits:
    """Compute the logits of the next token of each text, with states kept between two calls.

    Texts may come and go between two calls.

    Args:
        net: A language network in eval mode.
        cached: Keep states.
        prefix: Processed beginning of texts.
    """

    def __init__(self, net: Any, cached: bool = True, prefix: Prefix | None = None) -> None:
        self.net = net
        self.cached = cached
        self.prefix = prefix
        self.groups: list[Group] = []
        self.starts: dict[Hashable, int] = {}  # of the window of each text

    def __call__(self, texts: Mapping[Any, Sequence[int]]) -> Tensor:
        """Return the logits (B, V), in the order of the texts.

        Args:
            texts: At least one text by any key. Those of the last call have one more token each.
        """
        starts = self._window_starts(texts)
        if not self.cached:
            self.groups = []
        kept = [self._keep(group, starts) for group in self.groups]
        groups = [group for group in kept if group[0]]
        found, logits = [], []
        for number, (keys, state) in enumerate(groups):  # one more token
            out, state = forward(self.net, [texts[key][-1:] for key in keys], state)
            groups[number] = keys, state
            found += keys
            logits.append(out[:, -1])
        new = {key: text for key, text in texts.items() if key not in found}
        for keys, out, state in self._process_new(new, starts):
            groups.append((keys, state))
            found += keys
            logits.append(out)
        self.starts = starts
        self.groups = self._join(groups) if self.cached else []
        return _in_order(logits, found, texts)

    def start(self, texts: Mapping[Any, Sequence[int]]) -> Tensor:
        """Return the logits (B, V) of new texts, and keep the states of those of the last call.

        Args:
            texts: At least one text by any key.
        """
        starts = self._window_starts(texts)
        found, logits, groups = [], [], list(self.groups)
        for keys, out, state in self._process_new(texts, starts):
            groups.append((keys, state))
            found += keys
            logits.append(out)
        self.starts |= starts
        self.groups = self._join(groups) if self.cached else []
        return _in_order(logits, found, texts)

    def _window_starts(self, texts: Mapping[Any, Sequence[int]]) -> dict[Hashable, int]:
        return {key: window_start(len(text), self.net.context) for key, text in texts.items()}

    def _keep(self, group: Group, starts: dict[Hashable, int]) -> Group:
        """Return the group without texts that are gone or whose window starts elsewhere now."""
        keys, state = group
        rows = [n for n, key in enumerate(keys) if self.starts[key] == starts.get(key)]
        if len(rows) == len(keys):
            return group
        if not rows or not hasattr(self.net, "reorder_state"):
            return [], None
        index = torch.tensor(rows, device=device_of(self.net))
        return [keys[row] for row in rows], self.net.reorder_state(state, index)

    def _process_new(
        self, texts: Mapping[Any, Sequence[int]], starts: dict[Hashable, int]
    ) -> Iterator[tuple[list[Hashable], Tensor, Any]]:
        """Process texts from the start of their window, those of equal length as one batch.

        Yields:
            The keys of a batch, logits (B, V), and the state.
        """
        batches: dict[tuple[int, int], list[Hashable]] = {}
        for key, text in texts.items():
            batches.setdefault((starts[key], len(text)), []).append(key)
        for (start, _), keys in batches.items():
            out, state = self._process([texts[key][start:] for key in keys], start)
            yield keys, out[:, -1], state

    def _process(self, windows: Sequence[Sequence[int]], start: int) -> Any:
        if not self.cached:
            return forward(self.net, windows, None)
        known = [] if self.prefix is None else self.prefix.tokens
        if (
            self.prefix is not None
            and start == 0
            and len(windows[0]) > len(known)
            and all(list(window[: len(known)]) == known for window in windows)
        ):
            first = torch.zeros(len(windows), dtype=torch.long, device=device_of(self.net))
            state = self.net.reorder_state(self.prefix.state, first)
            return forward(self.net, [window[len(known) :] for window in windows], state)
        return forward(self.net, windows, self.net.init_state(len(windows)))

    def _join(self, groups: list[Group]) -> list[Group]:
        join_states = getattr(self.net, "join_states", None)
        if len(groups) == 1 or join_states is None:
            return groups
        keys = [key for group, _ in groups for key in group]
        return [(keys, join_states([state for _, state in groups]))]


def _in_order(logits: list[Tensor], found: list[Hashable], texts: Mapping[Any, Any]) -> Tensor:
    """Return the logits of batches of texts (B, V) in the order of the texts."""
    rows = {key: row for row, key in enumerate(found)}
    order = [rows[key] for key in texts]
    if len(logits) == 1 and order == sorted(order):
        return logits[0]
    return torch.cat(logits)[torch.tensor(order, device=logits[0].device)]


def window_start(position: int, context: int | None) -> int:
    """Return the start of the window from which the token at `position` is predicted.

    The window grows from half the context to the full context and is then cut to half again.
    """
    if context is None or position <= context:
        return 0
    stride = context - context // 2
    return -(-(position - context) // stride) * stride


def forward(net: Any, tokens: Tensor | Sequence[Sequence[int]], state: Any) -> Any:
    """Return the logits (B, T, V) and the state of B token sequences of equal length."""
    with eager_mode(net):
        return net(torch.as_tensor(tokens, device=device_of(net)), state)


def device_of(net: Any) -> torch.device:
    """Return the device of a network; one without parameters is on the CPU."""
    first: Tensor = next(net.parameters(), torch.empty(0))
    return first.device


def check_prompts(prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Check the arguments of `generate`.

    Raises:
        UserError: If max_new_tokens is out of range or a prompt is empty.
    """
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise UserError("the prompt is empty: it must contain at least one token.")
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens must be at least 1, got {max_new_tokens}.")
