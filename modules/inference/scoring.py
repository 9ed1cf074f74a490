"""Log-probabilities of given continuations, by which a language model chooses among options."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from engine.errors import UserError
from modules.inference.generation import Prefix, device_of, forward


@torch.inference_mode()
def score_options(
    net: Any,
    prompts: Sequence[Sequence[int]],
    options: Sequence[Sequence[int]],
    prefix: Prefix | None = None,
) -> Tensor:
    """Return the log-probability of each option after each prompt, (N, K), in nats.

    The prompt is processed once for all options; of an option only the tokens after its first one
    are processed again.

    Args:
        net: A language network with `init_state` and `reorder_state`, in eval mode.
        prompts: N prompts of at least one token.
        options: K continuations of at least one token.
        prefix: Processed beginning of prompts; those that begin otherwise are processed whole.

    Raises:
        UserError: If an option is empty, or a prompt with its longest option exceeds the context.
    """
    if not all(options):
        raise UserError("an option must have at least one token.")
    longest = max(map(len, options))
    scores = torch.empty(len(prompts), len(options))
    for row, prompt in enumerate(prompts):
        if net.context is not None and len(prompt) + longest > net.context:
            raise UserError(
                f"a prompt of {len(prompt)} tokens and an option of {longest} exceed the context "
                f"of {net.context} tokens: shorten the prompt, or use fewer examples."
            )
        logits, state = _process(net, list(prompt), prefix)
        first = logits[0, -1].log_softmax(-1)  # (V,)
        for column, option in enumerate(options):
            score = first[option[0]]
            if len(option) > 1:
                rows = torch.zeros(1, dtype=torch.long, device=device_of(net))
                copy = net.reorder_state(state, rows)
                logits, _ = forward(net, [option[:-1]], copy)  # (1, T - 1, V)
                following = torch.as_tensor(option[1:], device=logits.device)
                score = score + logits[0].log_softmax(-1).gather(1, following[:, None]).sum()
            scores[row, column] = score
    return scores


def _process(net: Any, prompt: list[int], prefix: Prefix | None) -> Any:
    if prefix is not None and prompt[: len(prefix.tokens)] == prefix.tokens:
        rest = prompt[len(prefix.tokens) :]
        if rest:
            rows = torch.zeros(1, dtype=torch.long, device=device_of(net))
            return forward(net, [rest], net.reorder_state(prefix.state, rows))
    return forward(net, [prompt], net.init_state(1))
