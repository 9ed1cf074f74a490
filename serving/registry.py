"""Models of an MLflow registry, models:/NAME@ALIAS and models:/NAME/VERSION.

The server resolves an alias when it starts, asks for it again at intervals, and replaces the model
when the alias names another version.
"""

import asyncio
import logging
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import yaml

from serving.errors import Problem, StartError
from serving.settings import Settings

log = logging.getLogger("serving")
PREFIX = "models:/"
MODEL = "model"  # the checkpoint or folder among the artifacts of a model
Swap = Callable[[str, str], Awaitable[Any]]


def name_in_registry(source: str) -> str:
    """Return NAME of models:/NAME@ALIAS or models:/NAME/VERSION."""
    return source.removeprefix(PREFIX).partition("@")[0].partition("/")[0]


class Registry:
    """The registry of a server; sources that are not in a registry are returned unchanged.

    Args:
        settings: Settings of the server.
    """

    def __init__(self, settings: Settings) -> None:
        self.uri = settings.registry_uri
        self.seconds = settings.registry_seconds
        self.versions: dict[str, str] = {}  # source with an alias to the version that was fetched
        self._folder: Path | None = None  # of downloaded models
        self._task: asyncio.Task[None] | None = None

    async def fetch(self, source: str) -> str:
        """Return the path of a model, downloaded if it is in a registry.

        Raises:
            StartError: If the registry does not have it, or cannot be reached.
        """
        if not source.startswith(PREFIX):
            return source
        try:
            version = await asyncio.to_thread(self._version, source)
            path = await asyncio.to_thread(self._download, name_in_registry(source), version)
        except Exception as error:  # MLflow raises errors of databases and HTTP clients, too
            raise StartError(f"{source}: {_reason(error)}") from error
        if "@" in source:
            self.versions[source] = version
        return path

    def follow(self, sources: dict[str, str], swap: Swap) -> None:
        """Replace models when their aliases move.

        Args:
            sources: Source of each model by name; only those with an alias are followed.
            swap: Replaces the model of a name by a source.
        """
        followed = {name: source for name, source in sources.items() if source in self.versions}
        if followed:
            self._task = asyncio.create_task(self._follow(followed, swap))

    async def _follow(self, sources: dict[str, str], swap: Swap) -> None:
        while True:
            await asyncio.sleep(self.seconds)
            for name, source in sources.items():
                try:
                    version = await asyncio.to_thread(self._version, source)
                    if version == self.versions[source]:
                        continue
                    # Also of a version that cannot be served: it is not loaded again and again.
                    self.versions[source] = version
                    await swap(name, source)
                    log.info("%s is now version %s of %s", name, version, source)
                except Problem as problem:
                    log.error("%s: version %s: %s", source, version, problem.detail)
                except Exception as error:  # asked again after a while
                    log.error("%s cannot be followed: %s", source, _reason(error))

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _client(self) -> Any:
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise StartError(
                "a registry needs the package mlflow: pip install 'stepladder[mlflow]'"
            ) from error
        return MlflowClient(self.uri)

    def _version(self, source: str) -> str:
        name, _, alias = source.removeprefix(PREFIX).partition("@")
        if alias:
            return str(self._client().get_model_version_by_alias(name, alias).version)
        return source.rpartition("/")[2]

    def _download(self, name: str, version: str) -> str:
        """Return the path of the checkpoint or model folder of a version, without its code."""
        from mlflow.artifacts import download_artifacts

        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="stepladder-models-"))
        uri = self._client().get_model_version_download_uri(name, version)
        folder = self._folder / name / version
        folder.mkdir(parents=True, exist_ok=True)
        where = {"dst_path": str(folder), "tracking_uri": self.uri}
        described = yaml.safe_load(Path(download_artifacts(f"{uri}/MLmodel", **where)).read_text())
        artifacts = described["flavors"]["python_function"].get("artifacts", {})
        if MODEL not in artifacts:
            raise StartError(f"version {version} was not written by export.py --format mlflow")
        return str(download_artifacts(f"{uri}/{artifacts[MODEL]['path']}", **where))


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
