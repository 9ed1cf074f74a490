"""Solutions of day 15."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

NextLogProbs = Callable[[list[int]], list[float]]


def sequence_loss(logits: Tensor, targets: Tensor, pad: int) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=pad)


def greedy_decode(next_log_probs: NextLogProbs, eos: int, max_length: int) -> list[int]:
    tokens: list[int] = []
    while len(tokens) < max_length:
        log_probs = next_log_probs(tokens)
        best = max(range(len(log_probs)), key=lambda token: log_probs[token])
        if best == eos:
            break
        tokens.append(best)
    return tokens


def beam_search(
    next_log_probs: NextLogProbs, eos: int, max_length: int, beam_size: int, alpha: float = 0.0
) -> list[int]:
    beam: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[tuple[float, list[int]]] = []
    for length in range(1, max_length + 1):
        extended = [
            (total + log_prob, [*tokens, token])
            for total, tokens in beam
            for token, log_prob in enumerate(next_log_probs(tokens))
        ]
        extended.sort(key=lambda hypothesis: -hypothesis[0])
        beam = []
        for total, tokens in extended[:beam_size]:
            if tokens[-1] == eos:
                finished.append((total / length**alpha, tokens[:-1]))
            else:
                beam.append((total, tokens))
        if not beam:
            break
    finished += [(total / max_length**alpha, tokens) for total, tokens in beam]
    return max(finished, key=lambda hypothesis: hypothesis[0])[1]
