"""Solutions of day 39."""

import hashlib

import numpy as np


def hash_split(keys: list[str], val_percent: int, salt: str = "") -> list[str]:
    def bucket(key: str) -> int:
        return int.from_bytes(hashlib.sha256((salt + key).encode()).digest()[:8], "big") % 100

    return ["val" if bucket(key) < val_percent else "train" for key in keys]


def population_stability(expected: np.ndarray, actual: np.ndarray, bins: int = 10) -> float:
    edges = np.quantile(expected, np.arange(1, bins) / bins)

    def shares(values: np.ndarray) -> np.ndarray:
        counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=bins)
        return np.maximum(counts / len(values), 1e-4)

    before, after = shares(expected), shares(actual)
    return float(((after - before) * np.log(after / before)).sum())


def stale_steps(inputs: dict[str, list[str]], changed: set[str]) -> list[str]:
    order: list[str] = []
    while len(order) < len(inputs):
        ready = [
            step
            for step, reads in inputs.items()
            if step not in order and all(name in order or name not in inputs for name in reads)
        ]
        if not ready:
            raise ValueError("the steps depend on each other in a circle")
        order.append(min(ready))
    stale = set(changed)
    for step in order:
        if stale.intersection(inputs[step]):
            stale.add(step)
    return [step for step in order if step in stale]
