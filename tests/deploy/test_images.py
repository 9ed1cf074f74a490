"""Images of deploy/Dockerfile, built from Debian's packages without a registry, and run.

BUILD_IMAGES=all also builds the image with torch, which takes minutes; BASE_TAR=FILE is a base by
mmdebstrap that is used again.
"""

import io
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

import export
from modules import Classifier
from modules.inference.onnx_runtime import open_onnx
from tests.support.images import Builder, missing, running, seconds_until_healthy
from tests.support.requests import encoded, pairs, png
from tests.support.served_models import image_classifier, save
from tests.support.system import START_SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]
MEGABYTES = {"onnx": 500, "cpu": 1800}
HEALTHY_SECONDS = 20
torch_image = pytest.mark.skipif(
    os.environ.get("BUILD_IMAGES") != "all", reason="minutes; BUILD_IMAGES=all builds it"
)


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    builder = Builder(tmp_path_factory.mktemp("images"))
    builder.make_base()
    yield builder
    builder.remove()


def make_model(target: str, folder: Path) -> tuple[Any, str]:
    """Return a task and the name of its file or folder."""
    checkpoint = save(image_classifier(), folder / "digits.ckpt")
    if target != "onnx":
        return Classifier.load_from_checkpoint(checkpoint, weights_only=True).eval(), "digits.ckpt"
    arguments = ["--checkpoint", checkpoint, "--format", "onnx", "--output", folder / "digits"]
    export.main([*map(str, arguments)])
    return open_onnx(folder / "digits"), "digits"


@pytest.mark.parametrize("target", ["onnx", pytest.param("cpu", marks=torch_image)])
def test_image_is_small_and_serves(
    target: str, builder: Builder, tmp_path: Path, record_property: Any
) -> None:
    image = builder.build(target)
    config = builder.config(image)
    assert config["User"] == "10001"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert not [line for line in config["Env"] if line.startswith(("PIP_", "SSL_", "STEPLADDER_"))]
    task, name = make_model(target, tmp_path)
    tmp_path.chmod(0o755)
    with builder.mounted(image) as root:
        used = subprocess.check_output(["du", "--summarize", "--block-size=1M", root], text=True)
        record_property("megabytes", size := int(used.split()[0]))
        assert size <= MEGABYTES[target]
        for path in ("etc/pip.conf", "root/.config", "run/secrets", "venv/bin/pip", "usr/bin/cc"):
            assert not (root / path).exists()
        model = ["--checkpoint", f"/srv/{name}", "--name", "digits"]
        with running(root, config, tmp_path, *model) as (process, url):
            record_property("seconds", seconds_until_healthy(process, url, HEALTHY_SECONDS))
            status = Path(f"/proc/{process.pid}/status").read_text()
            assert "Uid:\t10001\t10001\t10001\t10001" in status
            mounts = Path(f"/proc/{process.pid}/mounts").read_text().splitlines()
            options = {line.split()[1]: line.split()[3].split(",") for line in mounts}
            assert "ro" in options["/"]
            body = {"inputs": [encoded(png())]}
            answer = httpx.post(f"{url}/v1/models/digits/classify", json=body, timeout=60).json()
            process.send_signal(signal.SIGTERM)
            assert process.wait(START_SECONDS) == 0
    expected = task.classify([Image.open(io.BytesIO(png()))], top_k=1)
    assert pairs(answer["predictions"]) == expected
