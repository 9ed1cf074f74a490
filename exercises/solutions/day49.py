"""Solutions of day 49."""

import numpy as np


def ablation_effects(
    results: dict[str, list[float]], baseline: str
) -> dict[str, tuple[float, float]]:
    reference = np.array(results[baseline])
    effects = {}
    for name, values in results.items():
        if name != baseline:
            differences = np.array(values) - reference
            error = differences.std(ddof=1) / np.sqrt(len(differences))
            effects[name] = float(differences.mean()), float(error)
    return effects


def pareto_front(models: dict[str, tuple[float, float]]) -> list[str]:
    def dominated(name: str) -> bool:
        cost, accuracy = models[name]
        return any(
            other[0] <= cost and other[1] >= accuracy and other != (cost, accuracy)
            for other in models.values()
        )

    kept = [name for name in models if not dominated(name)]
    return sorted(kept, key=lambda name: (models[name][0], name))


def amdahl_speedup(fractions: list[float], speedups: list[float]) -> float:
    parts = zip(fractions, speedups, strict=True)
    return 1 / (1 - sum(fractions) + sum(fraction / speedup for fraction, speedup in parts))


def roofline_seconds(
    flops: float, bytes_moved: float, peak_flops: float, bandwidth: float
) -> tuple[float, str]:
    compute, memory = flops / peak_flops, bytes_moved / bandwidth
    return max(compute, memory), "compute" if compute >= memory else "memory"
