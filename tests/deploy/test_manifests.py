"""The files of deploy/: manifests are valid, and agree with the server and the Dockerfile."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from setuptools import find_packages

from serving.metrics import Metrics
from serving.settings import Settings
from tests.support import ROOT

DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def documents(kind: str) -> list[Any]:
    parts = [part for path in MANIFESTS for part in yaml.safe_load_all(path.read_text())]
    return [part for part in parts if part["kind"] == kind]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_have_the_schema_of_kubernetes(path: Path) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for document in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(document, "1.31", strict=True)
    document["spec"]["unknown"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, "1.31", strict=True)


def test_deployment_fits_the_server_and_its_image() -> None:
    (deployment,) = documents("Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    settings = {one["name"]: one["value"] for one in container["env"]}
    made = Settings(
        **{name.removeprefix("STEPLADDER_").lower(): value for name, value in settings.items()}
    )
    grace = pod["terminationGracePeriodSeconds"]
    assert grace > made.drain_seconds + made.drain_timeout
    assert f"--uid {pod['securityContext']['runAsUser']} " in DOCKERFILE
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "keys"]
    assert f'"--keys_file", "{mount["mountPath"]}/keys"' in DOCKERFILE
    port = container["ports"][0]["containerPort"]
    assert f"EXPOSE {port}\n" in DOCKERFILE
    assert made.port == port
    for probe, route in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"]["path"] == route
    for kind in ("HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"):
        assert len(documents(kind)) == 1


def test_compose_is_hardened_and_its_files_exist() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert "build" in service or re.search(r":v?\d+\.\d+\.\d+$", service["image"])
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / source).is_file()
    serve = COMPOSE["services"]["serve"]
    assert f"FROM runtime AS {serve['build']['target']}\n" in DOCKERFILE
    names = {name.removeprefix("STEPLADDER_").lower() for name in serve["environment"]}
    assert names <= set(Settings.model_fields)


def test_dashboard_shows_metrics_of_the_server() -> None:
    known = {
        sample
        for metric in Metrics().registry.collect()
        for sample in (
            metric.name,
            *(f"{metric.name}_{end}" for end in ("total", "sum", "count", "bucket")),
        )
    }
    dashboard = json.loads((DEPLOY / "grafana/serving.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    used = {name for text in expressions for name in re.findall(r"stepladder_\w+", text)}
    assert used <= known
    assert len(used) >= 7


def test_image_contains_every_package_of_the_server() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for folder in re.findall(r"^COPY (\w+) \w+$", DOCKERFILE, re.MULTILINE):
        assert (ROOT / folder).is_dir()
        assert f"!{folder}" in ignored
    copied = set(re.findall(r"^COPY (\w+) \w+$", DOCKERFILE, re.MULTILINE))
    own = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    for folder in copied:
        for file in (ROOT / folder).rglob("*.py"):
            found = re.findall(r"^ *(?:from|import) (\w+)", file.read_text(), re.MULTILINE)
            assert own & {*found} <= copied, file
    assert ignored[0] == "*"  # nothing else: no data, runs, keys or settings of registries


def test_wheel_contains_every_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packaged = find_packages(str(ROOT), include=settings["packages"]["find"]["include"])
    for folder in re.findall(r"^COPY (\w+) \w+$", DOCKERFILE, re.MULTILINE):
        for file in (ROOT / folder).rglob("*.py"):
            assert ".".join(file.parent.relative_to(ROOT).parts) in packaged


def test_requirements_without_torch_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *extras["serve"], *extras["onnx"]]
    known = {one.name: one for one in map(Requirement, declared)}
    lines = (ROOT / "requirements-onnx.txt").read_text().splitlines()
    listed = [Requirement(line) for line in lines if not line.startswith("#")]
    assert {Requirement(one).name for one in extras["serve"]} <= {one.name for one in listed}
    for one in listed:
        assert (one.specifier, one.marker) == (known[one.name].specifier, known[one.name].marker)
