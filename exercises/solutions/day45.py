"""Solutions of day 45."""

import numpy as np

Statistics = tuple[np.ndarray, np.ndarray]


def merge_statistics(first: Statistics, second: Statistics) -> Statistics:
    maximum = np.maximum(first[0], second[0])
    finite = np.where(np.isinf(maximum), 0, maximum)  # both blocks may be empty
    total = first[1] * np.exp(first[0] - finite) + second[1] * np.exp(second[0] - finite)
    return maximum, total


def tiled_attention(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, block: int, causal: bool = False
) -> np.ndarray:
    maximum = np.full((len(query), 1), -np.inf)
    total = np.zeros((len(query), 1))
    output = np.zeros((len(query), value.shape[1]))
    for start in range(0, len(key), block):
        scores = query @ key[start : start + block].T / np.sqrt(query.shape[1])  # (T, block)
        if causal:
            positions = start + np.arange(scores.shape[1])
            scores = np.where(positions > np.arange(len(query))[:, None], -np.inf, scores)
        higher = np.maximum(maximum, scores.max(axis=1, keepdims=True))
        weights, rescale = np.exp(scores - higher), np.exp(maximum - higher)
        total = total * rescale + weights.sum(axis=1, keepdims=True)
        output = output * rescale + weights @ value[start : start + block]
        maximum = higher
    return output / total


def round_to_bfloat16(x: np.ndarray) -> np.ndarray:
    bits = x.view(np.uint32)
    even = (bits >> 16) & 1
    rounded = (bits + 0x7FFF + even) & np.uint32(0xFFFF0000)
    return rounded.astype(np.uint32).view(np.float32)


class LossScaler:
    def __init__(self, scale: float = 2.0**16, growth_interval: int = 2000) -> None:
        self.scale, self.growth_interval = scale, growth_interval
        self.good_steps = 0

    def update(self, overflow: bool) -> bool:
        if overflow:
            self.scale /= 2
            self.good_steps = 0
            return False
        self.good_steps += 1
        if self.good_steps == self.growth_interval:
            self.scale *= 2
            self.good_steps = 0
        return True
