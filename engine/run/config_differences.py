"""Compare configs by dotted keys."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def flatten(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of a config and their values; a list is one value."""
    if isinstance(config, Mapping) and config:
        for key, value in config.items():
            yield from flatten(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, config


def differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the keys whose values differ between configs.

    Args:
        configs: Configs as returned by `yaml.safe_load`.

    Returns:
        Key to its value in each config (None if missing), in the order of the keys.
    """
    flat = [dict(flatten(config)) for config in configs]
    keys = dict.fromkeys(key for config in flat for key in config)
    values = {key: [config.get(key) for config in flat] for key in keys}
    return {key: found for key, found in values.items() if any(v != found[0] for v in found)}
