"""Beam search over a whole batch of sentences.

At each step every sentence has `beam_size` hypotheses; all continuations by one token are scored
and the best `beam_size` are kept. A beam size of 1 is greedy decoding.

Longer sentences have lower likelihoods. Wu et al. 2016 (GNMT), equation 14, divide the logarithm by
a power of the length:

    score(Y) = log P(Y | X) / lp(Y)        lp(Y) = ((5 + |Y|) / 6)^α
"""

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.errors import UserError
from modules.inference.generation import check_prompts, device_of, forward

Memory = dict[str, Tensor]  # encoder outputs, each with B rows


class Translates(Protocol):
    """Encoder–decoder network that beam search can decode with."""

    context: int | None

    def encode(self, inputs: dict[str, Tensor]) -> Memory: ...

    def init_state(self, memory: Memory) -> Any: ...

    def reorder_state(self, state: Any, rows: Tensor) -> Any: ...

    def decode(self, tokens: Tensor, memory: Memory, state: Any = None) -> tuple[Tensor, Any]: ...


class PromptContinuation:
    """A language network and its prompt in the form that beam search decodes with.

    Args:
        net: A language network with `reorder_state`, in eval mode.
        prompt: Tokens of the prompt, at least one.
    """

    context: int | None = None

    def __init__(self, net: Any, prompt: Sequence[int]) -> None:
        if not hasattr(net, "reorder_state"):
            raise UserError(f"beam search is not possible with {type(net).__name__}.")
        self.net = net
        self.prompt = list(prompt)

    def encode(self, inputs: dict[str, Tensor]) -> Memory:
        return {"rows": torch.zeros_like(inputs["input_ids"][:, 0])}  # (B,)

    def init_state(self, memory: Memory) -> Any:
        """Return the state after all tokens of the prompt but the last one."""
        state = self.net.init_state(1)
        if self.prompt[:-1]:
            _, state = forward(self.net, [self.prompt[:-1]], state)
        return self.net.reorder_state(state, memory["rows"])

    def reorder_state(self, state: Any, rows: Tensor) -> Any:
        return self.net.reorder_state(state, rows)

    def decode(self, tokens: Tensor, memory: Memory, state: Any = None) -> tuple[Tensor, Any]:
        return forward(self.net, tokens, state)


def continue_with_beams(
    net: Any,
    prompt: Sequence[int],
    max_new_tokens: int,
    eos: Collection[int] = (),
    beam_size: int = 5,
    penalty: float = 0.0,
) -> list[int]:
    """Return the best continuation of a prompt that beam search finds.

    Args:
        net: A language network with `reorder_state`, in eval mode.
        prompt: Tokens of the prompt, at least one.
        max_new_tokens: Maximum number of tokens, including the end token.
        eos: Tokens that end the text, which is returned without them.
        beam_size: Number of hypotheses.
        penalty: Exponent of the length penalty; see `beam_search`.

    Raises:
        UserError: If an argument is out of range, or prompt and continuation exceed the context.
    """
    check_prompts([prompt], max_new_tokens)
    if net.context is not None and len(prompt) + max_new_tokens - 1 > net.context:
        raise UserError(
            f"beam search cannot exceed the context of the network, {net.context} tokens: the "
            f"prompt has {len(prompt)}, and max_new_tokens is {max_new_tokens}."
        )
    last = torch.tensor([prompt[-1]], device=device_of(net))
    source = {"input_ids": last[:, None], "attention_mask": torch.ones_like(last[:, None])}
    found, _ = beam_search(
        PromptContinuation(net, prompt), source, last, eos, beam_size, penalty, max_new_tokens
    )
    return found[0]


def length_penalty(length: Tensor | int, alpha: float) -> Tensor:
    """Return the divisor of a log-likelihood; 1 for one token, and for any length if α is 0."""
    return ((5.0 + torch.as_tensor(length)) / 6.0) ** alpha


def check_search(beam_size: int, penalty: float, max_length: int | None = None) -> None:
    """Check the arguments of `beam_search`.

    Raises:
        UserError: If an argument is out of range.
    """
    if beam_size < 1:
        raise UserError(f"beam_size must be at least 1, got {beam_size}.")
    if not 0 <= penalty < 100:
        raise UserError(f"length_penalty must be in [0, 100), got {penalty}; 0 disables it.")
    if max_length is not None and max_length < 1:
        raise UserError(f"max_length must be at least 1, got {max_length}.")


@torch.inference_mode()
def beam_search(
    net: Translates,
    inputs: dict[str, Tensor],
    bos: int | Tensor,
    eos: int | Collection[int],
    beam_size: int = 5,
    penalty: float = 0.6,
    max_length: int | None = None,
    exclude: Sequence[int] = (),
    cached: bool = True,
) -> tuple[list[list[int]], Tensor]:
    """Return the best translation found for each source.

    The search for a sentence ends when `beam_size` of its hypotheses have ended, when no other
    hypothesis can get a better score, or at the maximum length. Finished sentences leave the batch.

    Args:
        net: The network, in eval mode.
        inputs: `input_ids` and `attention_mask`, both (B, S).
        bos: First token of every sentence, or of each, (B,).
        eos: Token that ends a sentence, or several.
        beam_size: Number of hypotheses per sentence.
        penalty: Exponent α of the length penalty; 0 disables it, larger values favor longer
            sentences.
        max_length: Maximum number of generated tokens including `eos`; by default twice the source
            length plus 10.
        exclude: Tokens that are never generated, such as padding.
        cached: Reuse the network's state; False processes all tokens again at each step.

    Returns:
        Tokens of each sentence, without `bos` and `eos`, and their scores (B,).
    """
    check_search(beam_size, penalty, max_length)
    if not len(inputs["input_ids"]):  # with more processes than sentences, some have none
        return [], torch.empty(0)
    memory = net.encode(inputs)
    device = inputs["input_ids"].device
    B, K = len(inputs["input_ids"]), beam_size
    if max_length is None:
        limits = 2 * inputs["attention_mask"].long().sum(dim=1) + 10  # (B,)
    else:
        limits = torch.full((B,), max_length, device=device)  # (B,)
    if net.context is not None:
        limits = limits.clamp(max=net.context)
    found: list[list[int]] = [[] for _ in range(B)]
    scores = torch.full((B,), -torch.inf, dtype=torch.float32, device=device)  # (B,)

    alive = torch.arange(B, device=device)  # (A,) unfinished sentences
    repeated = alive.repeat_interleave(K)  # (A K,)
    memory = {name: part.index_select(0, repeated) for name, part in memory.items()}
    state = net.init_state(memory) if cached else None
    tokens_so_far = torch.as_tensor(bos, device=device).expand(B)[repeated, None]  # (A K, t)
    end_tokens = [eos] if isinstance(eos, int) else sorted(eos)
    last_tokens = torch.tensor(end_tokens, dtype=torch.long, device=device)
    sums = scores[:, None].repeat(1, K)  # (A, K) log P of each hypothesis
    sums[:, 0] = 0.0  # initially there is one hypothesis
    best = scores.clone()  # (A,) best score of a finished hypothesis
    ended = torch.zeros(B, dtype=torch.long, device=device)  # (A,) number of finished hypotheses
    best_tokens = tokens_so_far.new_zeros(B, int(limits.max()))  # (A, max length)
    best_length = torch.zeros_like(ended)  # (A,)

    for length in range(1, int(limits.max()) + 1):  # in tokens, after this step
        logits, state = net.decode(
            tokens_so_far[:, -1:] if cached else tokens_so_far, memory, state
        )
        log_probs = logits[:, -1].float().log_softmax(dim=-1)  # (A K, V)
        if exclude:
            log_probs[:, list(exclude)] = -torch.inf
        A, V = len(alive), log_probs.shape[-1]
        totals = (sums.unsqueeze(-1) + log_probs.view(A, K, V)).flatten(1)  # (A, K V)
        # Each hypothesis can end in one way, so K of the best 2 K continuations do not end.
        values, indices = totals.topk(min(2 * K, K * V), dim=1)  # (A, 2 K), in descending order
        tokens = indices % V  # (A, 2 K)
        ends = torch.isin(tokens, last_tokens)  # (A, 2 K)

        finished = ends & (values > -torch.inf)
        finished[:, K:] = False  # only the best K would have been kept
        last = limits[alive] <= length  # (A,) maximum length reached
        finished[:, :K] |= last.unsqueeze(1) & (values[:, :K] > -torch.inf)
        scored = torch.where(finished, values / length_penalty(length, penalty), -torch.inf)
        score, column = scored.max(dim=1)  # (A,), (A,)
        better = score > best  # (A,)
        best = torch.where(better, score, best)
        ended = ended + finished.sum(dim=1)
        row = torch.arange(A, device=device) * K + indices.gather(1, column[:, None])[:, 0] // V
        sequence = torch.cat(
            [tokens_so_far[row, 1:], tokens.gather(1, column[:, None])], dim=1
        )  # (A, t)
        best_tokens[:, :length] = torch.where(better[:, None], sequence, best_tokens[:, :length])
        best_length = torch.where(better, length, best_length)

        # Keep the best unfinished hypotheses: sort finished ones last.
        order = (ends.long() * 4 * K + torch.arange(values.shape[1], device=device)).argsort(dim=1)
        order = order[:, :K]  # (A, K)
        sums = values.gather(1, order).masked_fill(ends.gather(1, order), -torch.inf)  # (A, K)
        if order.shape[1] < K:  # a tiny vocabulary has fewer continuations than beams
            sums = torch.nn.functional.pad(sums, (0, K - order.shape[1]), value=-torch.inf)
            order = torch.nn.functional.pad(order, (0, K - order.shape[1]))
        beams = indices.gather(1, order) // V  # (A, K)
        rows = (torch.arange(A, device=device)[:, None] * K + beams).flatten()  # (A K,)
        tokens_so_far = torch.cat(
            [tokens_so_far.index_select(0, rows), tokens.gather(1, order).view(-1, 1)], dim=1
        )  # (A K, t + 1)

        # Likelihoods decrease, and the longest sentence has the largest penalty.
        bound = sums[:, 0] / length_penalty(limits[alive], penalty)  # (A,)
        done = last | (ended >= K) | (bound <= best)  # (A,)
        if done.any():
            for number in done.nonzero()[:, 0].tolist():
                generated = best_tokens[number, : best_length[number]].tolist()
                sentence = int(alive[number])
                has_end = generated[-1:] and generated[-1] in end_tokens
                found[sentence] = generated[:-1] if has_end else generated
                scores[sentence] = best[number]
            remaining = (~done).nonzero()[:, 0]  # (A',)
            if not len(remaining):
                break
            alive, best, ended = alive[remaining], best[remaining], ended[remaining]
            best_tokens, best_length, sums = (
                best_tokens[remaining],
                best_length[remaining],
                sums[remaining],
            )
            kept_rows = (
                remaining[:, None] * K + torch.arange(K, device=device)
            ).flatten()  # (A' K,)
            memory = {name: part.index_select(0, kept_rows) for name, part in memory.items()}
            rows, tokens_so_far = rows[kept_rows], tokens_so_far[kept_rows]
        if cached and (K > 1 or done.any()):
            state = net.reorder_state(state, rows)
    return found, scores
