"""Whether a run is the one whose results its config expects."""

from pathlib import Path
from typing import Any

import yaml
from lightning import Callback

from cli.arguments import Arguments, Setting
from cli.signatures import find_class

# Settings that do not change what a run computes, beyond rounding.
NEUTRAL = (
    *("config", "expect", "experiment", "runs_dir", "resume", "ckpt_path", "test_after_fit"),
    *("tracking", "auto_precision", "seed_everything", "data.data_dir"),
    *("checkpoint.every_n_steps", "checkpoint.every_n_minutes"),
    *("trainer.logger", "trainer.accelerator", "trainer.devices", "trainer.num_nodes"),
    *("trainer.strategy", "trainer.precision", "trainer.log_every_n_steps", "trainer.profiler"),
    *("trainer.enable_progress_bar", "trainer.enable_checkpointing", "trainer.barebones"),
    *("trainer.enable_model_summary", "trainer.num_sanity_val_steps", "trainer.detect_anomaly"),
)
NEUTRAL_CALLBACKS = ("callbacks.figures.", "callbacks.monitoring.", "callbacks.samples.")


def reason_not_judged(arguments: Arguments) -> str | None:
    """Why the results are not compared with `expect`; None if they are.

    The config that sets `expect` means the run that it describes. A flag or another config that
    changes this run makes the expectation meaningless; an `--expect` flag means the run at hand.
    """
    sources = [s.source for s in arguments.settings if s.key.partition(".")[0] == "expect"]
    if not sources or sources[-1].startswith("--"):
        return None
    config = sources[-1]
    if arguments.subcommand != "fit" and not _was_judged(arguments.flag("--ckpt_path")):
        return f"{arguments.flag('--ckpt_path')} is not from the run that {config} describes"
    described = {s.key: s.value for s in arguments.settings if s.source == config}
    changed = {
        s.key
        for s in arguments.effective_settings()
        if s.source != config and not _is_neutral(s) and described.get(s.key, ...) != s.value
    }
    if not changed:
        return None
    return f"{', '.join(sorted(changed))} differ{'s' * (len(changed) == 1)} from {config}"


def describe_other_data(arguments: Arguments) -> bool:
    """Whether the expectations are those of a config with another data module."""
    sources = [s.source for s in arguments.settings if s.key.partition(".")[0] == "expect"]
    described = [
        s.value for s in arguments.settings if s.key == "data" and s.source in sources[-1:]
    ]
    return bool(described) and described[-1] != arguments.chosen_class("data")


def _was_judged(checkpoint: str | None) -> bool:
    """Whether the run that wrote a checkpoint has kept its expectations."""
    path = Path(checkpoint or "").parent.parent / "config.yaml"
    if not path.is_file():
        return True
    return bool((yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("expect"))


def _is_neutral(setting: Setting) -> bool:
    key = setting.key
    if key == "trainer.callbacks":
        return all(_only_reports(item) for item in _as_list(setting.value))
    return any(key == name or key.startswith(name + ".") for name in NEUTRAL)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _only_reports(callback: Any) -> bool:
    path = callback.get("class_path") if isinstance(callback, dict) else callback
    found = find_class(str(path), Callback)
    return found is not None and found.__module__.startswith(NEUTRAL_CALLBACKS)
