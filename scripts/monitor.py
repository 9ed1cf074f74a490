"""Compare what a served classifier receives and answers with its training data and validation.

    python serve.py --checkpoint BEST.ckpt --log_file log.jsonl --samples_file samples.jsonl
    python -m scripts.monitor --checkpoint BEST.ckpt --samples samples.jsonl --output monitoring \\
      --log log.jsonl --labels labels.jsonl

Reported: drift of the inputs (PSI, Kolmogorov-Smirnov), of the predicted classes and of their
confidences against the predictions for the validation split; with --labels (JSON lines of `id`, the
X-Request-Id, and `label`, or `labels` of several inputs) accuracy and calibration error; with
--log, requests, errors and latencies. An alarm (exit code 1) is a drift above --max_psi with
p < 0.01, an accuracy or calibration error that is worse than in validation by more than
--max_loss, or more than --max_errors of the requests failing by status 5xx. The output folder gets
report.json and drift.png.
"""

import argparse
import base64
import io
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.checkpoint.reading import load_task
from engine.errors import UserError, exit_on_user_error
from engine.process import escape_unencodable_output, prepare_process
from engine.run.figures import render
from modules import Classifier
from preprocessing.images import images_to_inputs
from scripts.evaluation.data import open_data
from scripts.evaluation.drift import (
    MAX_PSI,
    Features,
    TextFeatures,
    compare,
    drift_figure,
    image_features,
    psi_of_counts,
)
from scripts.evaluation.predictions import predict, reliability
from scripts.validate_data import flat

MIN_SAMPLES = 50  # inputs; with fewer, the difference may be chance


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines; a line that is being written is left out.

    Raises:
        UserError: If the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}.") from error


def service_quality(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return requests, share of server errors, and percentiles of the seconds of a request log."""
    lines = [line for line in lines if line.get("route", "").startswith("/v1/")]
    seconds = [line["seconds"] for line in lines] or [0.0]
    statuses = Counter(line["status"] for line in lines)
    percentiles = np.quantile(seconds, [0.5, 0.95, 0.99]).tolist()
    failed = sum(count for status, count in statuses.items() if status >= 500)
    return {
        "requests": len(lines),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "failed": failed / max(1, len(lines)),
        "seconds": dict(zip(("p50", "p95", "p99"), percentiles, strict=True)),
    }


def received(samples: Sequence[dict[str, Any]]) -> tuple[list[Any], list[str]]:
    """Return the inputs of sampled requests, and the id of the request of each."""
    pairs = [
        (value, sample["id"])
        for sample in samples
        if sample["operation"] == "classify"
        for value in sample["inputs"]
    ]
    if len(pairs) < MIN_SAMPLES:
        raise UserError(
            f"--samples has {len(pairs)} inputs of classify; at least {MIN_SAMPLES} are needed."
        )
    return [value for value, _ in pairs], [identity for _, identity in pairs]


def features_of(task: Classifier, data: Any, inputs: list[Any]) -> tuple[Features, Features]:
    """Return the features of the training data and of the inputs."""
    if task.preprocessing is None:
        reference = flat(data.texts["train"].texts)
        features = TextFeatures(reference)
        return features(reference), features(flat(inputs))
    images, _ = data.splits["train"]
    plain = task.preprocessing | {
        "mean": [0.0] * images.shape[1],
        "std": [1.0] * images.shape[1],
    }
    decoded = [decode(one) for one in inputs]
    return image_features(images), image_features(images_to_inputs(decoded, plain) * 255)


def decode(value: dict[str, str]) -> Any:
    return Image.open(io.BytesIO(base64.b64decode(value["image"])))


@torch.inference_mode()
def logits_of(task: Classifier, inputs: list[Any], size: int = 64) -> Tensor:
    """Return the logits (N, K) of raw inputs."""
    raw = inputs if task.preprocessing is None else [decode(one) for one in inputs]
    parts = []
    for start in range(0, len(raw), size):
        rows = task.classify(raw[start : start + size], top_k=len(task.class_names))
        found = [dict(row) for row in rows]
        parts.append(torch.tensor([[one[name] for name in task.class_names] for one in found]))
    return torch.cat(parts).clamp_min(1e-12).log()


def labeled_rows(
    labels: Sequence[dict[str, Any]], identities: list[str], class_names: list[str]
) -> tuple[list[int], list[int]]:
    """Return the rows of inputs whose labels are known, and the labels."""
    known = {line["id"]: line.get("labels") or [line["label"]] for line in labels}
    counts: Counter[str] = Counter()
    rows, found = [], []
    for row, identity in enumerate(identities):
        number = counts[identity]
        counts[identity] += 1
        if number < len(known.get(identity, ())):
            label = str(known[identity][number])
            if label not in class_names:
                raise UserError(f"--labels: {label!r} is not one of {', '.join(class_names)}.")
            rows.append(row)
            found.append(class_names.index(label))
    return rows, found


def monitor(options: argparse.Namespace) -> tuple[dict[str, Any], Any]:
    """Return the report with its alarms, and the figure of the drift."""
    task = load_task(options.checkpoint, Classifier, "a classifier's config").eval()
    data: Any = open_data(options.checkpoint, options.data, options.data_dir)
    inputs, identities = received(read_lines(options.samples))
    reference, current = features_of(task, data, inputs)
    drifts = compare(reference, current)
    validation, targets, _ = predict(task, data, "val")
    logits = logits_of(task, inputs)
    confidences = [one.softmax(1).amax(1).numpy() for one in (validation, logits)]
    drifts += compare(*({"confidence": values} for values in confidences))
    counts = [
        np.bincount(one.argmax(1).numpy(), minlength=len(task.class_names))
        for one in (validation, logits)
    ]
    predicted = psi_of_counts(*counts)
    report: dict[str, Any] = {
        "inputs": len(inputs),
        "drift": {drift.feature: drift._asdict() for drift in drifts},
        "predicted_classes": {"psi": predicted},
    }
    alarms = [
        f"{drift.feature}: PSI {drift.psi:.3f}, KS {drift.ks:.3f} (p = {drift.p_value:.1e}), mean "
        f"{drift.sample:.4g} instead of {drift.reference:.4g}"
        for drift in drifts
        if drift.is_shifted(options.max_psi)
    ]
    if predicted > options.max_psi:
        alarms.append(f"predicted classes: PSI {predicted:.3f}")
    if options.labels is not None:
        rows, found = labeled_rows(read_lines(options.labels), identities, task.class_names)
        report["quality"] = quality(logits[rows], torch.tensor(found), validation, targets)
        alarms += quality_alarms(report["quality"], options.max_loss)
    if options.log is not None:
        report["service"] = service_quality(read_lines(options.log))
        if report["service"]["failed"] > options.max_errors:
            alarms.append(f"{report['service']['failed']:.1%} of the requests failed")
    title = f"{len(inputs):,} inputs against the training data"
    figure = render(lambda: drift_figure(reference, {"served": current}, title))
    return report | {"alarms": alarms}, figure


def quality(logits: Tensor, labels: Tensor, validation: Tensor, targets: Tensor) -> dict[str, Any]:
    """Return accuracy and calibration error of labeled inputs and of the validation split."""
    if not len(labels):
        return {"labeled": 0}
    found: dict[str, Any] = {"labeled": len(labels)}
    for name, x, y in (("served", logits, labels), ("validation", validation, targets)):
        accuracy = (x.argmax(1) == y).double().mean().item()
        found[name] = {"accuracy": accuracy, "calibration_error": reliability(x, y)[1]}
    return found


def quality_alarms(found: dict[str, Any], max_loss: float) -> list[str]:
    if found["labeled"] < MIN_SAMPLES:
        return []
    served, validation = found["served"], found["validation"]
    alarms = []
    if served["accuracy"] < validation["accuracy"] - max_loss:
        alarms.append(
            f"accuracy {served['accuracy']:.3f}, {validation['accuracy']:.3f} in validation"
        )
    if served["calibration_error"] > validation["calibration_error"] + max_loss:
        alarms.append(
            f"calibration error {served['calibration_error']:.3f}, "
            f"{validation['calibration_error']:.3f} in validation"
        )
    return alarms


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m scripts.monitor", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="PATH", help="the served classifier")
    add("--samples", type=Path, required=True, metavar="FILE", help="--samples_file of serve.py")
    add("--log", type=Path, metavar="FILE", help="--log_file of serve.py")
    add("--labels", type=Path, metavar="FILE", help="true labels by request id")
    add("--data", type=Path, metavar="CONFIG", help="config with a key `data` (default: the run's)")
    add("--data_dir", metavar="FOLDER", help="folder of the data sets (default: the config's)")
    add("--output", type=Path, required=True, metavar="FOLDER", help="folder of the report")
    add("--max_psi", type=float, default=MAX_PSI, help=f"largest drift without alarm ({MAX_PSI})")
    add("--max_loss", type=float, default=0.05, help="largest loss of quality (0.05)")
    add("--max_errors", type=float, default=0.01, help="largest share of failed requests (0.01)")
    return parser


def main(args: list[str] | None = None) -> Path:
    """Run a command line, such as `main(["--checkpoint", …])`.

    Returns:
        The output folder.

    Raises:
        SystemExit: With code 1 if there is an alarm, 2 after a user error.
    """
    escape_unencodable_output()
    options = build_parser().parse_args(args)
    prepare_process()
    folder: Path = options.output
    with exit_on_user_error("monitor"):
        report, figure = monitor(options)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
            (folder / "drift.png").write_bytes(figure or b"")
        except OSError as error:
            raise UserError(f"--output: cannot write {folder}: {error}.") from error
    for alarm in report["alarms"]:
        sys.stderr.write(f"monitor: ALARM: {alarm}\n")
    print(f"Report: {folder / 'report.json'}, {len(report['alarms'])} alarms")
    if report["alarms"]:
        sys.exit(1)
    return folder


if __name__ == "__main__":
    main()
