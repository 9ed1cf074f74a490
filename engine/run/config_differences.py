"""What differs between configs: their values by dotted key, and the keys whose values differ."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def flatten(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of a config and their values; lists are values."""
    if isinstance(config, Mapping) and config:
        for key, value in config.items():
            yield from flatten(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, config


def differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Keys that do not have the same value in all configs.

    Args:
        configs: As `yaml.safe_load` gives them.

    Returns:
        Key to its value in each config, None where a config does not have it; in the order in
        which the configs tell the keys.
    """
    flat = [dict(flatten(config)) for config in configs]
    keys = dict.fromkeys(key for config in flat for key in config)
    values = {key: [config.get(key) for config in flat] for key in keys}
    return {key: found for key, found in values.items() if any(v != found[0] for v in found)}
