"""Solutions of day 38."""

import math
from typing import Any


def flatten(config: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{name}.{key}" if name else str(key), inner)
        elif name in result:
            raise ValueError(f"two parameters are named {name}")
        else:
            result[name] = value

    add("", config)
    return result


def best_run(runs: list[dict[str, Any]], metric: str, mode: str) -> str | None:
    if mode not in ("min", "max"):
        raise ValueError(f"mode must be min or max, not {mode}")
    sign = 1 if mode == "min" else -1
    candidates = [
        run
        for run in runs
        if run["status"] == "finished" and not math.isnan(run["metrics"].get(metric, math.nan))
    ]
    best = min(candidates, key=lambda run: sign * run["metrics"][metric], default=None)
    return None if best is None else best["name"]


class Registry:
    def __init__(self) -> None:
        self.runs: list[str] = []
        self.history: dict[str, list[int]] = {}

    def register(self, run: str) -> int:
        self.runs.append(run)
        return len(self.runs)

    def promote(self, alias: str, version: int) -> None:
        if not 1 <= version <= len(self.runs):
            raise ValueError(f"there is no version {version}")
        versions = self.history.setdefault(alias, [])
        if versions[-1:] != [version]:
            versions.append(version)

    def resolve(self, alias: str) -> str:
        if alias not in self.history:
            raise ValueError(f"there is no alias {alias}")
        return self.runs[self.history[alias][-1] - 1]

    def rollback(self, alias: str) -> int:
        versions = self.history.get(alias, [])
        if len(versions) < 2:
            raise ValueError(f"{alias} has no earlier version")
        versions.pop()
        return versions[-1]
