"""Parsed configs as YAML text, and YAML text as plain values."""

from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

# The loader in C takes a tenth of the time; installations of PyYAML without it have the other.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def dump_config(parser: ArgumentParser, config: Namespace, *, link_targets: bool = False) -> str:
    """Return a parsed config as YAML.

    It is not validated a second time, which takes two thirds of the time of a dump.

    Args:
        parser: The parser that returned the config.
        config: The config.
        link_targets: Include arguments that are computed from others.
    """
    return str(
        parser.dump(
            config,
            format="yaml",
            skip_none=False,
            skip_validation=True,
            skip_link_targets=not link_targets,
        )
    )


def load_yaml(text: str) -> Any:
    """Return the plain values of a YAML text."""
    return yaml.load(text, Loader=_Loader)
