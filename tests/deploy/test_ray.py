"""deploy/ray: the routes and answers of serve.py, on a cluster that loses a replica and a node."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from pydantic import ValidationError

from modules import Classifier
from tests.support import ROOT
from tests.support.requests import TEXTS, pairs
from tests.support.served_models import save, text_classifier
from tests.support.system import START_SECONDS, free_port

pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = pytest.mark.slow
HOST = "127.0.0.1"
CLIENTS = 3
REPLICA = b"ray::ServeReplica:default:serving"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes that listen on the loopback address only."""
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 by default: minutes on a busy machine
    # Ray replaces the loopback address by that of the machine, for which it has no setting.
    monkeypatch.setattr("ray._private.services.get_node_ip_address", lambda address=None: HOST)
    node = {"node_ip_address": HOST, "num_cpus": 1}
    nodes = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        ray.init(address=nodes.address, log_to_driver=False)  # on the only node, the head
        nodes.add_node(**node)
        yield nodes
    finally:
        serve.shutdown()
        ray.shutdown()
        nodes.shutdown()


def children(process: int) -> list[int]:
    return [
        int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()
    ]


def replicas(node: Any) -> list[int]:
    """Return the ids of the replicas' processes on a node."""
    (raylet,) = node.all_processes["raylet"]
    found = children(raylet.process.pid)
    return [pid for pid in found if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(REPLICA)]


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.2)


class Load:
    """Requests of several clients until `stop`; each has one request at a time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[tuple[float, float, int]] = []  # begin, end, status
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._done.wait(0.1):
                begin = time.monotonic()
                status = client.post(self.url, json={"inputs": TEXTS}).status_code
                self.requests.append((begin, time.monotonic(), status))

    def wait(self) -> None:
        """Wait for further requests."""
        seen = len(self.requests)
        wait_for(lambda: len(self.requests) >= seen + 10)

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()


def test_config_is_valid_and_other_hosts_need_keys() -> None:
    from ray.serve.schema import ServeDeploySchema

    from deploy.ray.application import build

    config = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())
    ServeDeploySchema.model_validate(config)
    (application,) = config["applications"]
    assert application["import_path"] == f"{build.__module__}:{build.__name__}"
    build(application["args"])
    with pytest.raises(ValidationError, match="keys_file"):
        build({"checkpoint": "reviews.ckpt"})
    with pytest.raises(ValidationError, match="thread"):
        build({"host": HOST, "thread": 1})


def test_replica_and_node_are_lost_with_their_requests_only(cluster: Any, tmp_path: Path) -> None:
    from ray import serve

    from deploy.ray.application import build

    checkpoint, port = save(text_classifier(), tmp_path / "reviews.ckpt"), free_port()
    settings = {"host": HOST, "checkpoint": str(checkpoint), "threads": 1}
    serve.start(proxy_location="HeadOnly", http_options={"host": HOST, "port": port})
    serve.run(build(settings | {"min_replicas": 2}), route_prefix="/")
    url = f"http://{HOST}:{port}"
    path = f"{url}/v1/models/reviews/classify"
    head, (second,) = cluster.head_node, cluster.worker_nodes
    assert [len(replicas(node)) for node in (head, second)] == [1, 1]

    answer = httpx.post(path, json={"inputs": TEXTS}, timeout=60).json()
    task = Classifier.load_from_checkpoint(checkpoint, weights_only=True).eval()
    assert pairs(answer["predictions"]) == [[pair] for pair in task.classify(TEXTS)]
    assert httpx.get(f"{url}/readyz").json() == {"status": "ready"}
    assert "classify" in httpx.get(f"{url}/docs").text
    wrong = httpx.post(path, json={"inputs": []})
    assert (wrong.status_code, wrong.headers["content-type"]) == (422, "application/problem+json")

    load, killed = Load(path), []
    try:
        load.wait()
        (replica,) = replicas(head)
        os.kill(replica, signal.SIGKILL)
        killed.append(time.monotonic())
        wait_for(lambda: len({*replicas(head)} - {replica}) == 1)  # no other node has a free CPU
        load.wait()
        for process in replicas(second):
            for one in (*children(process), process):
                os.kill(one, signal.SIGKILL)
        cluster.remove_node(second, allow_graceful=False)  # kill -9
        killed.append(time.monotonic())
        load.wait()
    finally:
        load.stop()
    lost = [request for request in load.requests if request[2] != 200]
    for begin, end, _ in lost:
        assert any(begin <= when <= end for when in killed), (lost, killed)
