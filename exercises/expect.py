"""Comparisons for graders: each raises Wrong with the difference and, if it is known, its cause."""

import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

# Hints and the wrong results that they explain; pairs where a hint explains several.
Mistakes = Mapping[str, Any] | Iterable[tuple[str, Any]]


class Wrong(Exception):
    """A result that differs from the expected one.

    Args:
        message: What differs.
        hint: The likely mistake.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} Hint: {hint}" if hint else message)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Return standard normal numbers in float64."""
    return np.random.default_rng(seed).normal(size=shape)


def randn(*shape: int, seed: int = 0, dtype: Any = None) -> Any:
    """Return a tensor of standard normal numbers, in float64 unless `dtype` is given."""
    import torch

    return torch.from_numpy(normal(*shape, seed=seed)).to(dtype or torch.float64)


def close(
    actual: Any,
    expected: Any,
    mistakes: Mistakes | None = None,
    name: str = "the result",
    rtol: float = 1e-6,
    atol: float = 1e-8,
) -> None:
    """Compare numbers, arrays or tensors.

    Args:
        actual: The learner's result.
        expected: The right one; an array asks for an array, a tensor for a tensor.
        mistakes: Hints and the wrong results that they explain.
        name: What is compared, for messages.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Raises:
        Wrong: If type, shape or a value differs.
    """
    found, right = _as_array(actual, expected, name), _plain(expected)
    if found.shape == right.shape and np.allclose(found, right, rtol, atol, equal_nan=True):
        return
    hint = ""
    for text, wrong in _pairs(mistakes):
        value = _plain(wrong)
        if value.shape == found.shape and np.allclose(found, value, rtol, atol, equal_nan=True):
            hint = text
            break
    if found.shape != right.shape:
        raise Wrong(f"{name} has shape {found.shape}, expected {right.shape}.", hint)
    if not np.isfinite(found).all() and np.isfinite(right).all():
        raise Wrong(f"{name} has values that are inf or nan.", hint)
    with np.errstate(invalid="ignore"):
        difference = np.abs(found.astype(np.float64) - right.astype(np.float64))
    worst = np.unravel_index(np.argmax(np.nan_to_num(difference, nan=np.inf)), right.shape)
    place = f" at {tuple(map(int, worst))}" if right.ndim else ""
    raise Wrong(f"{name} is {found[worst]:.6g}{place}, expected {right[worst]:.6g}.", hint)


def equal(
    actual: Any, expected: Any, mistakes: Mistakes | None = None, name: str = "the result"
) -> None:
    """Compare strings, integers, lists, tuples or dictionaries by type and value.

    Raises:
        Wrong: If they differ.
    """
    if isinstance(actual, np.generic):
        actual = actual.item()
    if actual is None:
        raise Wrong(f"{name} is None.", "is a return statement missing?")
    if type(actual) is not type(expected):
        kinds = type(actual).__name__, type(expected).__name__
        raise Wrong(f"{name} has type {kinds[0]}, expected {kinds[1]}.")
    if actual == expected:
        return
    hints = [text for text, wrong in _pairs(mistakes) if actual == wrong]
    raise Wrong(f"{name} is {_short(actual)}, expected {_short(expected)}.", "".join(hints[:1]))


def true(condition: Any, message: str, hint: str = "") -> None:
    """Raise Wrong unless `condition` holds."""
    if not condition:
        raise Wrong(message, hint)


def parts(actual: Any, number: int) -> tuple:
    """Return the `number` parts of a result.

    Raises:
        Wrong: If the result is not a tuple of that length.
    """
    if not isinstance(actual, tuple) or len(actual) != number:
        size = f" of {len(actual)}" if isinstance(actual, tuple) else ""
        raise Wrong(f"expected a tuple of {number}, got {type(actual).__name__}{size}.")
    return actual


def raises(error: type[Exception], function: Callable[[], Any], when: str) -> None:
    """Call a function that must raise `error`.

    Raises:
        Wrong: If it raises none or another one.
    """
    found = "nothing was raised"
    try:
        function()
    except NotImplementedError:  # a RuntimeError, too
        raise
    except error:
        return
    except Exception as other:
        found = f"got {type(other).__name__}"
    raise Wrong(f"expected {error.__name__} {when}; {found}.")


def unchanged(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function and return its result.

    Raises:
        Wrong: If it modified an argument.
    """
    before = [_plain(argument).copy() for argument in arguments]
    result = function(*arguments)
    for position, (old, new) in enumerate(zip(before, arguments, strict=True)):
        if not np.array_equal(old, _plain(new), equal_nan=old.dtype.kind == "f"):
            raise Wrong(
                f"argument {position} was modified.", "x -= y changes x in place; write x = x - y"
            )
    return result


def numerical_gradient(
    function: Callable[[np.ndarray], Any], x: np.ndarray, step: float = 1e-5
) -> np.ndarray:
    """Return the gradient of a scalar function by central differences, error O(step²)."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        forward, backward = x.copy(), x.copy()
        forward[index] += step
        backward[index] -= step
        gradient[index] = (float(function(forward)) - float(function(backward))) / (2 * step)
    return gradient


def faster_than(seconds: float, function: Callable[[], Any], hint: str, attempts: int = 3) -> None:
    """Compare the CPU time of the fastest of some calls with a bound.

    Raises:
        Wrong: If every call takes longer.
    """
    best = float("inf")
    for _ in range(attempts):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
        if best <= seconds:
            return
    raise Wrong(f"took {best:.2f} s of CPU time, at most {seconds:g} s expected.", hint)


def less_memory_than(megabytes: float, function: Callable[[], Any], hint: str) -> None:
    """Compare the peak of the memory that NumPy and Python allocate in a call with a bound.

    Raises:
        Wrong: If the call allocates more.
    """
    tracemalloc.start()
    try:
        function()
        peak = tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
    if peak > megabytes:
        raise Wrong(f"needed {peak:.1f} MB, at most {megabytes:g} MB expected.", hint)


def _pairs(mistakes: Mistakes | None) -> Iterable[tuple[str, Any]]:
    return mistakes.items() if isinstance(mistakes, Mapping) else mistakes or ()


def _plain(value: Any) -> np.ndarray:
    """Return an array of numbers, tensors or arrays."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float().numpy() if str(value.dtype) == "torch.bfloat16" else value.numpy()
    return np.asarray(value)


def _as_array(actual: Any, expected: Any, name: str) -> np.ndarray:
    """Return the learner's result as an array after a check of its type."""
    torch = sys.modules.get("torch")
    if actual is None:
        raise Wrong(f"{name} is None.", "is a return statement missing?")
    if torch is not None and isinstance(expected, torch.Tensor):
        kind, right = "a tensor", isinstance(actual, torch.Tensor)
    elif isinstance(expected, np.ndarray) and expected.ndim:
        kind, right = "a NumPy array", isinstance(actual, np.ndarray)
    else:
        kind, right = "a number", not isinstance(actual, str | list | tuple | dict)
    if not right:
        raise Wrong(f"{name} has type {type(actual).__name__}, expected {kind}.")
    array = _plain(actual)
    if array.dtype.kind not in "bifuc":
        raise Wrong(f"{name} is not numeric: dtype {array.dtype}.")
    return array


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
