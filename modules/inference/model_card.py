"""The model card, README.md, of an exported folder: data, metrics, base, license, intended use."""

import json
from pathlib import Path
from typing import Any

import yaml

from engine.checkpoint.reading import read_checkpoint
from preprocessing.model_folders import find_license

USES = {  # task → what the model is for
    "Classifier": "Assign one of its classes to a text",
    "MultiLabelClassifier": "Assign any number of its classes to a text",
    "Regressor": "Predict a number for a text",
    "TokenClassifier": "Label the words of a text",
    "MaskedLanguageModel": "Predict masked words; a base for fine-tuning",
    "LanguageModel": "Continue a text, or answer where it has a chat template",
}
LIMITS = (
    "It was evaluated on the data below only: evaluate it on your own before use. It is not meant "
    "for decisions about people without a human review."
)


def write_model_card(checkpoint: Path, folder: Path) -> None:
    """Write README.md from the hyper-parameters of a checkpoint and the results.json of its run.

    Args:
        checkpoint: `<run>/checkpoints/<name>.ckpt`; of any other checkpoint less is known.
        folder: Folder with the exported model.
    """
    saved = read_checkpoint(checkpoint)
    hyper_parameters = saved.get("hyper_parameters", {})
    task = str(hyper_parameters.get("_class_path", "")).rpartition(".")[2]
    results = _read_results(checkpoint)
    config = results.get("config", {})
    net = config.get("model", {}).get("init_args", {}).get("net") or hyper_parameters.get("net", {})
    arguments = net.get("init_args", {}) if isinstance(net, dict) else {}
    base = saved.get("base", {}).get("pretrained") or arguments.get("pretrained")
    license = None if base is None else find_license(str(base), arguments.get("data_dir") or "data")
    classes = hyper_parameters.get("class_names")
    head = {"library_name": "transformers", "base_model": base, "license": license}
    lines = [
        "---",
        yaml.safe_dump({k: v for k, v in head.items() if v}, sort_keys=False).strip(),
        "---",
        "",
        f"# {_title(checkpoint, task)}",
        "",
        "## Intended use",
        "",
        f"{USES.get(task, 'Inference')}. {LIMITS}",
        *(["", f"Classes: {', '.join(map(str, classes))}."] if classes else []),
        "",
        "## Data",
        "",
        *_data(config.get("data")),
        "",
        "## Metrics",
        "",
        *_metrics(results),
        "",
        "## Base",
        "",
        f"Fine-tuned from `{base}`; its license: {license or 'not stated'}."
        if base
        else "Trained from random weights, or from weights that the checkpoint does not name.",
    ]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _read_results(checkpoint: Path) -> dict[str, Any]:
    """Return the results.json of the checkpoint's run; empty where there is none."""
    path = checkpoint.parent.parent / "results.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return results if isinstance(results, dict) else {}


def _title(checkpoint: Path, task: str) -> str:
    run = checkpoint.resolve().parent.parent
    return run.parent.name if run.name.isdigit() else task or checkpoint.stem


def _data(data: Any) -> list[str]:
    if not isinstance(data, dict) or "class_path" not in data:
        return ["Not recorded: there is no results.json beside the checkpoint."]
    hidden = ("data_dir", "seed")
    arguments = {k: v for k, v in data.get("init_args", {}).items() if v is not None}
    lines = [f"- {name}: `{value}`" for name, value in arguments.items() if name not in hidden]
    return [f"`{data['class_path']}` with", "", *lines]


def _metrics(results: dict[str, Any]) -> list[str]:
    metrics = results.get("metrics")
    if not metrics:
        return ["Not recorded: there is no results.json beside the checkpoint."]
    rows = [f"| {name} | {value:.4g} |" for name, value in metrics.items()]
    steps = f"{results.get('steps')} steps, {results.get('date')}, {results.get('machine')}"
    return ["| metric | value |", "| --- | --- |", *rows, "", f"After {steps}."]
