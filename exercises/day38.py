"""Day 38: experiment tracking: parameters, the best run, a model registry."""

from typing import Any


def flatten(config: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a nested config under dotted names, as trackers want them.

    Lists count as values. An empty dict is left out.

    Args:
        config: Such as {"optimizer": {"lr": 0.1}}, which gives {"optimizer.lr": 0.1}.

    Raises:
        ValueError: If two parameters have the same name; the message contains it.
    """
    raise NotImplementedError


def best_run(runs: list[dict[str, Any]], metric: str, mode: str) -> str | None:
    """Return the name of the best finished run.

    Runs that are not finished, lack the metric, or have nan are left out. Of equal runs the first
    is the best.

    Args:
        runs: Each with "name", "status" ("finished", "failed" or "running") and "metrics".
        metric: Name of a metric.
        mode: "min" or "max".

    Returns:
        The name, or None if no run is left.

    Raises:
        ValueError: If mode is neither "min" nor "max".
    """
    raise NotImplementedError


class Registry:
    """Numbered versions of a model, and aliases such as "production" that can be rolled back."""

    def __init__(self) -> None:
        raise NotImplementedError

    def register(self, run: str) -> int:
        """Store a run as the next version, from 1, and return its number."""
        raise NotImplementedError

    def promote(self, alias: str, version: int) -> None:
        """Let an alias point to a version; to the version that it has already, nothing changes.

        Raises:
            ValueError: If there is no such version.
        """
        raise NotImplementedError

    def resolve(self, alias: str) -> str:
        """Return the run of the version that an alias points to.

        Raises:
            ValueError: If there is no such alias.
        """
        raise NotImplementedError

    def rollback(self, alias: str) -> int:
        """Let an alias point to the version that it had before, and return it.

        Two rollbacks go back two promotions.

        Raises:
            ValueError: If there is no earlier version.
        """
        raise NotImplementedError
