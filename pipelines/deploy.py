"""Stages 8 and 9: make a registered version the champion, and test it as it is served.

    python -m pipelines.deploy --name digits --version version.json --output deployed.json
    python -m pipelines.deploy --smoke_test --name digits --config CONFIG --output smoke.json

A server that was started with models:/NAME@champion loads the new version by itself. The smoke test
starts serve.py with the champion on a free port, sends rows of the test split and compares the
labels with those of the task itself; if it fails, the former champion is restored and the exit code
is 1.
"""

import argparse
import base64
import io
import os
from pathlib import Path
from typing import Any

import httpx
from mlflow import MlflowClient
from PIL import Image

from engine.errors import UserError
from integrations.mlflow_registry import promote, tracking_uri
from pipelines.compare import find_champion, open_version
from pipelines.files import read_json, stage, write_json
from pipelines.served import served
from scripts.evaluate import choose_split
from scripts.evaluation.data import open_data

ROWS = 32  # of the smoke test
PREVIOUS = "previous"  # alias of the former champion


def deploy(name: str, version: str, alias: str, uri: str) -> dict[str, str | None]:
    """Move the alias to a version; the alias `previous` names the former one."""
    former = find_champion(name, alias, uri)
    if former is not None and str(former.version) != version:
        promote(name, str(former.version), PREVIOUS, uri)
    promote(name, version, alias, uri)
    return {"name": name, "version": version, "alias": alias}


def roll_back(name: str, alias: str, uri: str) -> str:
    """Restore the former champion and return its version; without one, remove the alias."""
    former = find_champion(name, PREVIOUS, uri)
    if former is None:
        MlflowClient(uri).delete_registered_model_alias(name, alias)
        return "none"
    promote(name, str(former.version), alias, uri)
    return str(former.version)


def smoke_test(name: str, alias: str, config: Path, uri: str) -> dict[str, Any]:
    """Serve the champion, and compare its labels on rows of the data with those of the task.

    Raises:
        UserError: If it cannot be served, or answers otherwise.
    """
    champion = find_champion(name, alias, uri)
    if champion is None:
        raise UserError(f"{name} has no alias {alias}.")
    data: Any = open_data(Path(), config)
    rows, inputs = raw_inputs(data, choose_split(data, None))
    expected = [label for label, _ in open_version(champion, uri).eval().classify(rows)]
    source = f"models:/{name}@{alias}"
    options = ("--checkpoint", source, "--registry_uri", uri, "--log_file", os.devnull)
    with served(*options, "--threads", "1") as (_, address):
        url = f"{address}/v1/models/{name}/classify"
        answer = httpx.post(url, json={"inputs": inputs}, timeout=60)
    if answer.status_code != 200:
        raise UserError(f"{url} answers {answer.status_code}: {answer.text}")
    labels = [row[0]["label"] for row in answer.json()["predictions"]]
    if labels != expected:
        raise UserError(f"{source} answers {labels}, but the task {expected}.")
    return {"version": str(champion.version), "rows": len(rows), "equal": True}


def raw_inputs(data: Any, split: str) -> tuple[list[Any], list[Any]]:
    """Return rows of a split for the task, and as inputs of a request."""
    if hasattr(data, "raw_texts"):
        texts = data.raw_texts(split)[:ROWS]
        return texts, texts
    images, _ = data.splits[split]
    encoded = []
    for image in images[:ROWS]:
        buffer = io.BytesIO()
        pixels = image.permute(1, 2, 0).squeeze(2).numpy()  # (H, W) or (H, W, 3)
        Image.fromarray(pixels).save(buffer, "PNG")
        encoded.append({"image": base64.b64encode(buffer.getvalue()).decode()})
    return list(images[:ROWS]), encoded


def main(args: list[str] | None = None) -> None:
    """Run a stage.

    Raises:
        SystemExit: With code 2 after an error, which is reported in one message.
    """
    parser = argparse.ArgumentParser(
        "python -m pipelines.deploy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--name", required=True, help="name of the registered model")
    add("--version", type=Path, metavar="FILE", help="output of integrations.mlflow_registry")
    add("--smoke_test", action="store_true", help="test the champion as it is served")
    add("--config", type=Path, help="config of the data of the smoke test")
    add("--alias", default="champion", help="alias of the deployed version (champion)")
    add("--uri", help="MLflow (default: MLFLOW_TRACKING_URI, or sqlite:///runs/mlflow.db)")
    add("--output", type=Path, required=True, metavar="FILE", help="the result as JSON")
    options = parser.parse_args(args)
    uri = options.uri or tracking_uri()
    with stage("deploy"):
        if options.smoke_test == (options.version is not None):
            raise UserError("pass either --version, or --smoke_test with --config.")
        if options.smoke_test:
            try:
                result = smoke_test(options.name, options.alias, options.config, uri)
            except Exception as error:
                restored = roll_back(options.name, options.alias, uri)
                raise UserError(f"{error} Restored champion: {restored}.") from error
        else:
            version = read_json(options.version)["version"]
            result = deploy(options.name, version, options.alias, uri)
        write_json(options.output, result)
    print(", ".join(f"{key} {value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
