"""Register trained models at MLflow, with their origin, and move aliases such as `champion`.

    python -m integrations.mlflow_registry --name reviews --alias challenger \\
      --checkpoint runs/sst2-lstm/001/checkpoints/best.ckpt
    python -m integrations.mlflow_registry --name reviews --version 3 --alias champion

The model is logged with the MLflow run of its training where there is one (configs/logger/mlflow.
yaml), otherwise with a new run. The version has tags for the checkpoint's hash, the hash of the
training data, the commit and the run folder; config.yaml and results.json are artifacts of the run.
A checkpoint is registered once: registering it again returns its version.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient, pyfunc
from mlflow.exceptions import MlflowException

from engine.errors import UserError, exit_on_user_error
from engine.process import escape_unencodable_output, hide_artifact_bars
from engine.run.trackers import read_ids
from integrations.mlflow_model import arguments_of

EXPERIMENT = "stepladder"  # as in configs/logger/mlflow.yaml
HASH = "checkpoint_sha256"
VARIABLE = "MLFLOW_TRACKING_URI"
RECORDS = ("config.yaml", "results.json")


def tracking_uri(runs_dir: Path | str = "runs") -> str:
    """Return MLFLOW_TRACKING_URI, or the database of configs/logger/mlflow.yaml."""
    return os.environ.get(VARIABLE) or f"sqlite:///{runs_dir}/mlflow.db"


def sha256(path: Path) -> str:
    """Return the hash of a file, or of the names and contents of the files of a folder."""
    if path.is_file():
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file in sorted(one for one in path.rglob("*") if one.is_file()):
        digest.update(f"{file.relative_to(path)} {sha256(file)}\n".encode())
    return digest.hexdigest()


def register(checkpoint: Path, name: str, uri: str, alias: str | None = None, **tags: str) -> str:
    """Register a checkpoint or model folder and return its version.

    Args:
        checkpoint: A checkpoint in a run folder, another checkpoint, or a model folder.
        name: Name of the registered model.
        uri: MLflow server or database.
        alias: Alias for the version.
        tags: Further tags of the version.

    Raises:
        UserError: If the model cannot be read or MLflow does not take it.
    """
    if not checkpoint.exists():
        raise UserError(f"--checkpoint: there is no model at {checkpoint}.")
    client, digest = MlflowClient(uri), sha256(checkpoint)
    tags = {HASH: digest, **origin(checkpoint), **tags}
    try:
        version = find_version(client, name, digest)
        if version is None:
            run_id = find_run(client, checkpoint.resolve().parent.parent)
            model = log_model(uri, run_id, checkpoint)
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(name)
            with tracking_at(uri):  # in which MLflow looks for the logged model
                created = client.create_model_version(
                    name, model.model_uri, model.run_id, tags, model_id=model.model_id
                )
            version = str(created.version)
        if alias:
            client.set_registered_model_alias(name, alias, version)
    except MlflowException as error:
        raise UserError(f"MLflow at {uri}: {error}") from error
    return version


def origin(checkpoint: Path) -> dict[str, str]:
    """Return where a checkpoint comes from: run folder, commit, data and their hash."""
    folder = checkpoint.resolve().parent.parent
    if not (folder / "results.json").is_file():
        return {"source": str(checkpoint)}
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    found = {
        "run": f"{folder.parent.name}/{folder.name}",
        "git_commit": results.get("git_commit"),
        "data": results.get("config", {}).get("data", {}).get("class_path"),
        "data_checksum": results.get("data_checksum"),
    }
    return {key: str(value) for key, value in found.items() if value}


def find_version(client: MlflowClient, name: str, digest: str) -> str | None:
    """Return the version that a checkpoint was registered as, or None."""
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get(HASH) == digest and version.status == "READY":
            return str(version.version)
    return None


def find_run(client: MlflowClient, folder: Path) -> str:
    """Return the id of the MLflow run of a run folder, or of a new run with its records."""
    known = read_ids(folder).get("MLFlowLogger", []) if folder.is_dir() else []
    for run_id in known:
        try:
            return str(client.get_run(run_id).info.run_id)
        except MlflowException:
            continue  # of another server
    experiment = client.get_experiment_by_name(EXPERIMENT)
    where = artifact_location(str(client.tracking_uri))
    number = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT, where)
    run = client.create_run(number, run_name=f"{folder.parent.name}-{folder.name}")
    results = folder / "results.json"
    if results.is_file():
        metrics = json.loads(results.read_text(encoding="utf-8"))["metrics"]
        for key, value in metrics.items():
            client.log_metric(run.info.run_id, key, value)
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def log_model(uri: str, run_id: str, checkpoint: Path) -> Any:
    """Log a model and the records of its run to an MLflow run."""
    folder = checkpoint.resolve().parent.parent
    client = MlflowClient(uri)
    for record in RECORDS:
        if (folder / record).is_file():
            client.log_artifact(run_id, str(folder / record))
    status = client.get_run(run_id).info.status
    with tracking_at(uri):
        try:
            with mlflow.start_run(run_id):
                return pyfunc.log_model(name="model", **arguments_of(checkpoint))
        finally:
            client.set_terminated(run_id, status)


def artifact_location(uri: str) -> str | None:
    """Return the folder of artifacts beside a SQLite database; None leaves it to the server.

    MLflow's default is a folder in the working directory. configs/logger/mlflow.yaml names the
    same place as here.
    """
    path = uri.removeprefix("sqlite:///")
    return None if path == uri else str(Path(path).parent / "mlflow")


@contextmanager
def tracking_at(uri: str) -> Iterator[None]:
    """Make an MLflow server or database the default one."""
    before = os.environ.get(VARIABLE)
    mlflow.set_tracking_uri(uri)  # also sets the environment variable
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # also removes it
        if before is not None:
            os.environ[VARIABLE] = before


def promote(name: str, version: str, alias: str, uri: str) -> None:
    """Move an alias to a version.

    Raises:
        UserError: If there is no such version.
    """
    try:
        MlflowClient(uri).set_registered_model_alias(name, alias, version)
    except MlflowException as error:
        raise UserError(f"MLflow at {uri}: {error}") from error


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m integrations.mlflow_registry", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--name", required=True, help="name of the registered model")
    add("--checkpoint", type=Path, metavar="PATH", help="model to register")
    add("--version", help="registered version, to move an alias to it")
    add("--alias", help="alias of the version, such as challenger or champion")
    add("--output", type=Path, metavar="FILE", help="JSON file for name and version")
    add("--uri", help="MLflow (default: MLFLOW_TRACKING_URI, or sqlite:///runs/mlflow.db)")
    return parser


def main(args: list[str] | None = None) -> str:
    """Run the command line; from Python: `main(["--name", …])`.

    Returns:
        The version.

    Raises:
        SystemExit: With code 2 and one message on stderr after a user error.
    """
    escape_unencodable_output()
    hide_artifact_bars()
    options = parser().parse_args(args)
    uri = options.uri or tracking_uri()
    with exit_on_user_error("mlflow_registry"):
        if (options.checkpoint is None) == (options.version is None):
            raise UserError("pass either --checkpoint to register, or --version with --alias.")
        if options.checkpoint is not None:
            version = register(options.checkpoint.expanduser(), options.name, uri, options.alias)
        elif options.alias is None:
            raise UserError("--version needs --alias.")
        else:
            version = options.version
            promote(options.name, version, options.alias, uri)
        if options.output is not None:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps({"name": options.name, "version": str(version)}))
    print(f"models:/{options.name}/{version}{f' ({options.alias})' if options.alias else ''}")
    return str(version)


if __name__ == "__main__":
    main()
