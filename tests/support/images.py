"""Container images without a registry: Debian's packages as the base, buildah, and chroot."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support import ROOT
from tests.support.system import free_port

BASE = "localhost/stepladder-base"
PACKAGES = "python3,python3-venv,ca-certificates"
RUN = """
set -e
root=$1 model=$2; shift 2
mount --bind "$root" "$root"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$model" "$root/srv"
mount -o remount,bind,ro "$root"
exec chroot --userspec=10001:10001 "$root" env --ignore-environment "$@"
"""


def missing() -> str:
    """Return why images cannot be built here; empty if they can."""
    if os.geteuid() != 0:
        return "needs root, to mount file systems"
    absent = [tool for tool in ("buildah", "mmdebstrap") if shutil.which(tool) is None]
    return f"needs Debian's packages: apt-get install {' '.join(absent)}" if absent else ""


class Builder:
    """buildah with a storage of its own.

    Args:
        folder: Folder of the storage.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._command = ["buildah", "--root", f"{folder}/storage", "--runroot", f"{folder}/run"]

    def __call__(self, *arguments: str | Path) -> str:
        """Run a command of buildah and return its output."""
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # of useradd
        done = subprocess.run(
            [*self._command, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=os.environ | {"PATH": path},
            cwd=ROOT,
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout.strip()

    def make_base(self) -> None:
        """Make the base image, from the file that BASE_TAR names or from Debian's packages."""
        archive = Path(os.environ.get("BASE_TAR") or self.folder / "base.tar")
        if not archive.exists():
            command = ["mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm"]
            subprocess.run([*command, archive], check=True, capture_output=True)
        container = self("from", "scratch")
        self("add", container, archive, "/")
        self("commit", "--rm", container, BASE)

    def build(self, target: str) -> str:
        """Build a target of the Dockerfile and return the name of the image."""
        name = f"localhost/stepladder:{target}"
        options = ["build", "--isolation", "chroot", "--format", "docker", "--layers"]
        options += ["--build-arg", f"BASE={BASE}", "--file", "deploy/Dockerfile"]
        # The settings of pip are mounted for the stage with pip only: mount points remain.
        self(*options, *self._pip_settings(), "--target", f"build-{target}", ".")
        self(*options, "--target", target, "--tag", name, ".")
        return name

    def _pip_settings(self) -> list[str]:
        """Return options that mount the settings of pip, its certificates and local folders."""
        listed = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True
        ).stdout
        found = re.findall(r"^(?:global|:env:|install)\.([\w-]+)='(.*)'$", listed, re.MULTILINE)
        settings = {name: value.replace("\\n", " ") for name, value in found}
        file = self.folder / "pip.conf"
        file.write_text("\n".join(["[global]", *(f"{n} = {v}" for n, v in settings.items())]))
        words = " ".join(settings.values()).split()
        # The pages of an index in a folder refer to the files beside it.
        indexes = {str(Path(word[7:]).parent) for word in words if word.startswith("file:///")}
        folders = {*indexes, *(word for word in words if word.startswith("/"))}
        mounted = {folder: folder for folder in folders if Path(folder).is_dir()}
        mounted |= {str(file): "/etc/pip.conf", "/etc/ssl/certs": "/etc/ssl/certs"}
        return [
            part
            for source, target in mounted.items()
            for part in ("--volume", f"{source}:{target}:ro")
        ]

    def config(self, image: str) -> dict[str, Any]:
        """Return the configuration of an image."""
        described = json.loads(self("inspect", "--type", "image", image))
        config: dict[str, Any] = described["Docker"]["config"]
        return config

    @contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """Mount the file system of an image."""
        container = self("from", image)
        try:
            yield Path(self("mount", container))
        finally:
            self("rm", container)

    def remove(self) -> None:
        self("rm", "--all")
        self("rmi", "--all", "--force")
        shutil.rmtree(self.folder)


@contextmanager
def running(root: Path, config: dict[str, Any], model: Path, *arguments: str) -> Iterator[Any]:
    """Run the service of an image with a read-only root and yield its process and address.

    Args:
        root: File system of the image.
        config: Configuration of the image: environment and entry point are used.
        model: Folder that is mounted at /srv.
        arguments: Arguments of serve.py.
    """
    port = free_port()
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", RUN, "run"]
    command += [str(root), str(model), *config["Env"], *config["Entrypoint"]]
    command += ["--port", str(port), *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def seconds_until_healthy(process: Any, url: str, limit: float) -> float:
    """Return the time until the service answers /readyz."""
    started = time.monotonic()
    while time.monotonic() < started + limit:
        assert process.poll() is None
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return time.monotonic() - started
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"the service is not ready after {limit} seconds")
