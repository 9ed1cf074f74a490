"""Draw the error of finite differences against their step.

python -m scripts.draw_gradient_check --output gradient_check.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def errors(steps: np.ndarray, central: bool, dtype: type[np.floating] = np.float64) -> np.ndarray:
    """Return the relative error of differences of Σ tanh(x), by step.

    Args:
        steps: Steps h, above 0.
        central: Whether to take (f(x + h) - f(x - h)) / 2h instead of (f(x + h) - f(x)) / h.
        dtype: Precision of the computation.
    """
    x = np.random.default_rng(0).standard_normal(1000).astype(dtype)
    exact = 1 - np.tanh(x.astype(np.float64)) ** 2
    found = []
    for step in steps.astype(dtype):
        below = np.tanh(x - step) if central else np.tanh(x)
        difference = (np.tanh(x + step) - below) / (step * (2 if central else 1))
        found.append(np.linalg.norm(difference - exact) / np.linalg.norm(exact))
    return np.array(found)


def main(args: Sequence[str] | None = None) -> None:
    """Draw the figure and print the best step of each kind."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("gradient_check.png"))
    options = parser.parse_args(args)
    steps = 10.0 ** np.arange(-13, 0, 0.25)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    kinds: dict[str, tuple[bool, type[np.floating]]] = {
        "central, float64": (True, np.float64),
        "one-sided, float64": (False, np.float64),
        "central, float32": (True, np.float32),
    }
    for name, (central, dtype) in kinds.items():
        kept = steps[steps > np.sqrt(np.finfo(dtype).eps) * 1e-5]
        found = errors(kept, central, dtype)
        axes.loglog(kept, found, label=name)
        best = int(found.argmin())
        print(f"{name}: smallest error {found[best]:.1e} at h = {kept[best]:.0e}")
    axes.set(xlabel="step h", ylabel="relative error of the gradient")
    axes.legend(frameon=False)
    figure.savefig(options.output, dpi=110)
    print(f"figure: {options.output}")


if __name__ == "__main__":
    main()
