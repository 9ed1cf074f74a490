"""Options of train.py beyond those of LightningCLI."""

from typing import Any

OPTIONS: dict[str, tuple[Any, Any, str]] = {  # name: type, default, help
    "experiment": (str | None, None, "Name of the experiment; by default that of its config."),
    "runs_dir": (str, "runs", "Folder of all run folders."),
    "expect": (dict[str, str], {}, 'Expected results, as in {"test/accuracy": ">= 0.98"}.'),
    "test_after_fit": (bool, True, "Evaluate the best checkpoint after fit."),
    "auto_precision": (bool, False, "Choose the precision by the hardware."),
    "resume": (str | None, None, "Run folder to continue, or auto: the newest unfinished one."),
    "init_from": (str | None, None, "Checkpoint whose weights a new run starts from."),
}
