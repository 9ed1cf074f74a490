"""Stages 5 and 6: compare a checkpoint with the champion of the registry, and refuse a worse one.

    python -m pipelines.compare --checkpoint best.ckpt --config CONFIG --name digits --output c.json
    python -m pipelines.compare --gate c.json --output gate.json

Both models classify the same rows of the test split (or validation split). McNemar's exact test is
applied to the rows that only one of them classifies correctly, and the difference of the accuracies
has a bootstrap interval over the rows. --gate refuses (exit code 1) a model that is significantly
worse: its accuracy is lower, and p is below --significance.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from torch import Tensor

from engine.checkpoint.reading import load_task
from engine.errors import UserError
from integrations.mlflow_registry import HASH, sha256, tracking_uri
from modules import Classifier
from pipelines.files import read_json, stage, write_json
from scripts.evaluate import choose_split
from scripts.evaluation.data import check_fits, open_data
from scripts.evaluation.predictions import predict
from scripts.evaluation.statistics import mcnemar

RESAMPLES = 2000


def find_champion(name: str, alias: str, uri: str) -> Any:
    """Return the version that an alias names, or None if there is none."""
    try:
        return MlflowClient(uri).get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise UserError(f"MLflow at {uri}: {error}") from error


def open_version(version: Any, uri: str) -> Classifier:
    """Load a registered classifier."""
    download = MlflowClient(uri).get_model_version_download_uri(version.name, version.version)
    with tempfile.TemporaryDirectory() as folder:
        path = download_artifacts(download, dst_path=folder, tracking_uri=uri)
        (checkpoint,) = Path(path, "artifacts").glob("*.ckpt")
        return load_task(checkpoint, Classifier, "a classifier")


def difference(ours: Tensor, theirs: Tensor, labels: Tensor) -> dict[str, Any]:
    """Return accuracies, their difference with a 95 % interval, and McNemar's test.

    Args:
        ours: Logits (N, K) of the new model.
        theirs: Logits (N, K) of the champion.
        labels: (N,).
    """
    correct = [(logits.argmax(dim=1) == labels).double().numpy() for logits in (ours, theirs)]
    gain = correct[0] - correct[1]
    rows = np.random.default_rng(0).integers(len(gain), size=(RESAMPLES, len(gain)))
    low, high = np.quantile(gain[rows].mean(axis=1), [0.025, 0.975])
    test = mcnemar(ours, theirs, labels)
    return {
        "accuracy": float(correct[0].mean()),
        "champion_accuracy": float(correct[1].mean()),
        "difference": float(gain.mean()),
        "interval": [float(low), float(high)],
        "only_new_correct": test.only_first,
        "only_champion_correct": test.only_second,
        "p_value": test.p_value,
    }


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Return the comparison of a checkpoint with the champion on the same rows."""
    task = load_task(options.checkpoint, Classifier, "a classifier's config")
    data: Any = open_data(options.checkpoint, options.config)
    check_fits(str(options.checkpoint), task, data)
    split = choose_split(data, None)
    ours, labels, _ = predict(task, data, split)
    uri = options.uri or tracking_uri()
    champion = find_champion(options.name, options.alias, uri)
    found = {"split": split, "rows": len(labels), "champion": None}
    if champion is None or champion.tags.get(HASH) == sha256(options.checkpoint):
        accuracy = float((ours.argmax(dim=1) == labels).double().mean())
        return found | {"accuracy": accuracy, "champion": champion and str(champion.version)}
    former = open_version(champion, uri)
    check_fits(f"the champion, version {champion.version},", former, data)
    theirs, _, _ = predict(former, data, split)
    return found | {"champion": str(champion.version)} | difference(ours, theirs, labels)


def gate(comparison: dict[str, Any], significance: float) -> tuple[bool, str]:
    """Return whether a model is accepted, and why."""
    champion, accuracy = comparison["champion"], comparison["accuracy"]
    if champion is None:
        return True, f"accuracy {accuracy:.4f}; there is no champion yet"
    if "p_value" not in comparison:
        return True, f"accuracy {accuracy:.4f}; it is the champion, version {champion}"
    low, high = comparison["interval"]
    text = (
        f"accuracy {accuracy:.4f} against {comparison['champion_accuracy']:.4f} of version "
        f"{champion}, difference {comparison['difference']:+.4f} [{low:+.4f}, {high:+.4f}], "
        f"McNemar p = {comparison['p_value']:.3g} on {comparison['rows']:,} rows"
    )
    worse = comparison["difference"] < 0 and comparison["p_value"] < significance
    return not worse, text


def main(args: list[str] | None = None) -> None:
    """Run a stage.

    Raises:
        SystemExit: With code 1 if --gate refuses the model, 2 after a user error.
    """
    parser = argparse.ArgumentParser(
        "python -m pipelines.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, help="the new model")
    add("--config", type=Path, help="config of the data (default: the run's)")
    add("--name", help="name of the registered model")
    add("--alias", default="champion", help="alias of the model to compare with (champion)")
    add("--uri", help="MLflow (default: MLFLOW_TRACKING_URI, or sqlite:///runs/mlflow.db)")
    add("--gate", type=Path, metavar="FILE", help="comparison to decide on")
    add("--significance", type=float, default=0.05, help="level of the test (0.05)")
    add("--output", type=Path, required=True, metavar="FILE", help="the result as JSON")
    options = parser.parse_args(args)
    with stage("compare"):
        if options.gate is None:
            if options.checkpoint is None or options.name is None:
                raise UserError("pass --checkpoint and --name, or --gate.")
            write_json(options.output, compare(options))
            return
        comparison = read_json(options.gate)
        accepted, text = gate(comparison, options.significance)
        if accepted:
            write_json(options.output, comparison | {"accepted": True})
    print(f"{'accepted' if accepted else 'refused'}: {text}")
    if not accepted:
        sys.exit(1)


if __name__ == "__main__":
    main()
