"""Models in MLflow's format, their registry, and the server that follows an alias of it."""

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import export
from modules import Classifier
from tests.support.mlflow_server import mlflow_process
from tests.support.requests import TEXTS, pairs, png
from tests.support.served_models import (
    image_classifier,
    language_model,
    save,
    text_classifier,
)
from tests.support.server import ServerProcess

pd = pytest.importorskip("pandas")
mlflow = pytest.importorskip("mlflow")


def exported(checkpoint: Path, folder: Path) -> Any:
    options = ["--checkpoint", str(checkpoint), "--format", "mlflow", "--output", str(folder)]
    export.main(options)
    return mlflow.pyfunc.load_model(str(folder))


def test_text_model_gives_the_answers_of_the_task(tmp_path: Path) -> None:
    checkpoint = save(text_classifier(), tmp_path / "reviews.ckpt")
    model = exported(checkpoint, tmp_path / "out")
    task = Classifier.load_from_checkpoint(checkpoint, weights_only=True).eval()
    table = pd.DataFrame({"text": TEXTS})
    assert pairs(model.predict(table)) == [[pair] for pair in task.classify(TEXTS)]
    both = model.predict(table, params={"options": '{"top_k": 2}'})
    assert pairs(both) == task.classify(TEXTS, top_k=2)
    second = pd.DataFrame({"text": ["good"], "text_pair": ["bad"]})
    assert pairs(model.predict(second)) == [[pair] for pair in task.classify([("good", "bad")])]
    (explained,) = model.predict(table[:1], params={"operation": "explain"})
    assert explained["label"] == task.explain(TEXTS[:1])[0].label
    # Wrong operation, option and column: messages that name them.
    for params, text in (
        ({"operation": "generate"}, "it can: classify, explain"),
        ({"options": '{"topk": 2}'}, "topk"),
    ):
        with pytest.raises(Exception, match=text):
            model.predict(table, params=params)
    with pytest.raises(Exception, match="text"):
        model.predict(pd.DataFrame({"words": TEXTS}))
    # Schema, example, and no pickled object.
    assert [column.name for column in model.metadata.signature.inputs] == ["text", "text_pair"]
    assert model.input_example is not None
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".pyc")]
    assert len([path for path in files if path.suffix == ".ckpt"]) == 1


def test_image_and_language_models(tmp_path: Path) -> None:
    images = exported(save(image_classifier(), tmp_path / "d.ckpt"), tmp_path / "images")
    (first,), _ = images.predict(pd.DataFrame({"image": [png(), png(value=90)]}))
    assert first["label"] in ("zero", "one", "two")
    writer = exported(save(language_model(), tmp_path / "w.ckpt"), tmp_path / "writer")
    options = {"options": json.dumps({"max_new_tokens": 5, "top_k": 1})}
    table = pd.DataFrame({"text": ["Once upon"]})
    assert writer.predict(table, params=options)[0]["tokens"] == 5
    assert writer.predict(table, params=options) == writer.predict(table, params=options)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    options = ("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1")
    artifacts = ("--artifacts-destination", str(folder / "artifacts"), "--serve-artifacts")
    with mlflow_process(folder, "/health", "server", *options, *artifacts) as url:
        yield url


@pytest.mark.slow
def test_server_follows_the_champion_and_answers_like_mlflow(store: str, tmp_path: Path) -> None:
    from integrations.mlflow_registry import main, register

    paths = [save(text_classifier(seed), tmp_path / f"{seed}.ckpt") for seed in (2, 9)]
    tasks = [Classifier.load_from_checkpoint(path, weights_only=True).eval() for path in paths]
    expected = [[[pair] for pair in task.classify(TEXTS)] for task in tasks]
    registry = ("--uri", store, "--name", "reviews")
    assert main([*registry, "--checkpoint", str(paths[0]), "--alias", "champion"]) == "1"
    assert main([*registry, "--checkpoint", str(paths[1]), "--alias", "challenger"]) == "2"
    assert register(paths[0], "reviews", store) == "1"  # once only
    version = mlflow.MlflowClient(store).get_model_version("reviews", "2")
    assert len(version.tags["checkpoint_sha256"]) == 64

    options = ("--registry_uri", store, "--registry_seconds", "0.2", "--name", "reviews")
    source = ("--checkpoint", "models:/reviews@champion")
    server = ServerProcess(tmp_path / "server", *source, *options)
    path = "/v1/models/reviews"
    statuses: list[int] = []
    done = threading.Event()

    def load() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not done.is_set():
                body = {"inputs": TEXTS}
                statuses.append(client.post(f"{path}/classify", json=body).status_code)
                done.wait(0.1)

    thread = threading.Thread(target=load)
    try:
        assert (
            pairs(server.post(f"{path}/classify", {"inputs": TEXTS})["predictions"])
            == (expected[0])
        )
        thread.start()
        main([*registry, "--version", "2", "--alias", "champion"])
        limit = time.monotonic() + 60
        while server.http.get(path).json()["version"] == 1 and time.monotonic() < limit:
            time.sleep(0.3)
        answer = server.post(f"{path}/classify", {"inputs": TEXTS})["predictions"]
        serve = ("models", "serve", "--model-uri", "models:/reviews@champion")
        environment = ("--env-manager", "local")
        with mlflow_process(tmp_path, "/health", *serve, *environment, uri=store) as url:
            columns = {"columns": ["text"], "data": [[text] for text in TEXTS]}
            given = httpx.post(f"{url}/invocations", json={"dataframe_split": columns}, timeout=120)
    finally:
        done.set()
        if thread.ident:
            thread.join()
        assert server.stop() == 0
    assert pairs(answer) == expected[1]
    assert given.json()["predictions"] == answer
    assert set(statuses) == {200}


@pytest.mark.parametrize("before", [None, "http://127.0.0.1:9"])
def test_registry_leaves_the_tracking_uri_as_it_was(
    before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from integrations.mlflow_registry import VARIABLE, tracking_at

    mlflow.set_tracking_uri(None)  # otherwise that of another test
    if before:
        monkeypatch.setenv(VARIABLE, before)
    uri = mlflow.get_tracking_uri()
    with tracking_at(f"sqlite:///{tmp_path}/mlflow.db"):
        assert mlflow.get_tracking_uri().endswith(f"{tmp_path}/mlflow.db")
    assert mlflow.get_tracking_uri() == uri
    assert os.environ.get(VARIABLE) == before
