"""Write the likeliest sentences that a net can: beam search, one word at a time, all at once.

At each step every sentence has `beam_size` beginnings; all words may follow each of them; of all
these the likeliest `beam_size` are kept. A beam of 1 is greedy: always the likeliest word.

Likelihood is a product, so longer sentences have less of it. Wu et al. 2016 (GNMT), equation 14,
divide its logarithm by a power of the length:

    score(Y) = log P(Y | X) / lp(Y)        lp(Y) = ((5 + |Y|) / 6)^α
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

Memory = dict[str, Tensor]  # what was read, each with B rows


class Translates(Protocol):
    """A net that reads one sentence and writes another."""

    context: int | None

    def encode(self, inputs: dict[str, Tensor]) -> Memory: ...

    def init_state(self, memory: Memory) -> Any: ...

    def reorder_state(self, state: Any, rows: Tensor) -> Any: ...

    def decode(self, tokens: Tensor, memory: Memory, state: Any = None) -> tuple[Tensor, Any]: ...


def length_penalty(length: Tensor | int, alpha: float) -> Tensor:
    """What a log-likelihood is divided by; 1 for one token, and for every length where α is 0."""
    return ((5.0 + torch.as_tensor(length)) / 6.0) ** alpha


def check_search(beam_size: int, penalty: float, max_length: int | None = None) -> None:
    """Refuse what `beam_search` can't do, in one sentence.

    Raises:
        MisconfigurationException: If an argument is out of range.
    """
    for complaint, justified in {
        f"beam_size must be 1 or more, not {beam_size}": beam_size < 1,
        f"length_penalty must be 0 or more, not {penalty}; 0 is none": not 0 <= penalty < 100,
        f"max_length must be 1 or more, not {max_length}": max_length is not None
        and max_length < 1,
    }.items():
        if justified:
            raise MisconfigurationException(f"{complaint}.")


@torch.inference_mode()
def beam_search(
    net: Translates,
    inputs: dict[str, Tensor],
    begin: int,
    end: int,
    beam_size: int = 5,
    penalty: float = 0.6,
    max_length: int | None = None,
    never: Sequence[int] = (),
    cached: bool = True,
) -> tuple[list[list[int]], Tensor]:
    """The best sentence that is found for each source.

    A sentence is over when `beam_size` of its continuations have come to their end, when no other
    one could still be better, or when it is as long as it may get. Sentences that are over leave
    the batch.

    Args:
        net: In eval mode.
        inputs: `input_ids` and `attention_mask`, both (B, S).
        begin: The token that every sentence begins with.
        end: The token that ends one.
        beam_size: Beginnings that are kept of each sentence.
        penalty: α of the length penalty; 0 is none, more is for longer sentences.
        max_length: The most tokens that are written, `end` among them; by default twice as many as
            the source has, and ten.
        never: Tokens that are never written, such as padding.
        cached: Keep the net's state; False reads all that was written again for each word.

    Returns:
        Tokens of each sentence, without `begin` and `end`; and its score, (B,).
    """
    check_search(beam_size, penalty, max_length)
    if not len(inputs["input_ids"]):  # more processes than sentences: some have none
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

    alive = torch.arange(B, device=device)  # (A,) sentences that are not over yet
    repeated = alive.repeat_interleave(K)  # (A K,)
    memory = {name: part.index_select(0, repeated) for name, part in memory.items()}
    state = net.init_state(memory) if cached else None
    written = torch.full((B * K, 1), begin, device=device)  # (A K, t)
    sums = scores[:, None].repeat(1, K)  # (A, K) log P of each beginning
    sums[:, 0] = 0.0  # at first there is but one
    best = scores.clone()  # (A,) score of the best that has ended
    ended = torch.zeros(B, dtype=torch.long, device=device)  # (A,) how many have
    best_row = written.new_zeros(B, int(limits.max()))  # (A, longest)
    best_length = torch.zeros_like(ended)  # (A,)

    for length in range(1, int(limits.max()) + 1):  # of what is written after this step
        logits, state = net.decode(written[:, -1:] if cached else written, memory, state)
        chances = logits[:, -1].float().log_softmax(dim=-1)  # (A K, V)
        if never:
            chances[:, list(never)] = -torch.inf
        A, V = len(alive), chances.shape[-1]
        totals = (sums.unsqueeze(-1) + chances.view(A, K, V)).flatten(1)  # (A, K V)
        # Each beginning has one way to end: among 2 K continuations, K go on.
        values, places = totals.topk(min(2 * K, K * V), dim=1)  # (A, 2 K), the likeliest first
        tokens = places % V  # (A, 2 K)
        ends = tokens == end  # (A, 2 K)

        counts = ends & (values > -torch.inf)
        counts[:, K:] = False  # what does not belong to the K likeliest would not have been kept
        last = limits[alive] <= length  # (A,) whatever it is, it is over
        counts[:, :K] |= last.unsqueeze(1) & (values[:, :K] > -torch.inf)
        scored = torch.where(counts, values / length_penalty(length, penalty), -torch.inf)
        score, column = scored.max(dim=1)  # (A,), (A,)
        better = score > best  # (A,)
        best = torch.where(better, score, best)
        ended = ended + counts.sum(dim=1)
        row = torch.arange(A, device=device) * K + places.gather(1, column[:, None])[:, 0] // V
        whole = torch.cat([written[row, 1:], tokens.gather(1, column[:, None])], dim=1)  # (A, t)
        best_row[:, :length] = torch.where(better[:, None], whole, best_row[:, :length])
        best_length = torch.where(better, length, best_length)

        # Those that go on, still in order: ends last.
        order = (ends.long() * 4 * K + torch.arange(values.shape[1], device=device)).argsort(dim=1)
        order = order[:, :K]  # (A, K)
        sums = values.gather(1, order).masked_fill(ends.gather(1, order), -torch.inf)  # (A, K)
        if order.shape[1] < K:  # fewer continuations than beams: a tiny vocabulary
            sums = torch.nn.functional.pad(sums, (0, K - order.shape[1]), value=-torch.inf)
            order = torch.nn.functional.pad(order, (0, K - order.shape[1]))
        beams = places.gather(1, order) // V  # (A, K)
        rows = (torch.arange(A, device=device)[:, None] * K + beams).flatten()  # (A K,)
        written = torch.cat(
            [written.index_select(0, rows), tokens.gather(1, order).view(-1, 1)], dim=1
        )  # (A K, t + 1)

        # A likelihood only falls, and no penalty is larger than that of the longest sentence.
        reach = sums[:, 0] / length_penalty(limits[alive], penalty)  # (A,)
        over = last | (ended >= K) | (reach <= best)  # (A,)
        if over.any():
            for number in over.nonzero()[:, 0].tolist():
                text = best_row[number, : best_length[number]].tolist()
                sentence = int(alive[number])
                found[sentence] = text[:-1] if text[-1:] == [end] else text
                scores[sentence] = best[number]
            stay = (~over).nonzero()[:, 0]  # (A',)
            if not len(stay):
                break
            alive, best, ended = alive[stay], best[stay], ended[stay]
            best_row, best_length, sums = best_row[stay], best_length[stay], sums[stay]
            kept = (stay[:, None] * K + torch.arange(K, device=device)).flatten()  # (A' K,)
            memory = {name: part.index_select(0, kept) for name, part in memory.items()}
            rows, written = rows[kept], written[kept]
        if cached and (K > 1 or over.any()):
            state = net.reorder_state(state, rows)
    return found, scores
