"""Servers to compare with: `python -m benchmarks.serving.references KIND SOURCE PORT`.

They run the network of the source with one CPU thread, as our server does in the benchmark.
litserve: LitServe with batches of up to 16 requests. fastapi: one request at a time. empty: FastAPI
without a network, which parses the body and returns two constants.
"""

import sys
from pathlib import Path
from typing import Any


def classify(task: Any, inputs: list[str]) -> list[list[dict[str, Any]]]:
    """Return the body of an answer: the two most probable classes of each text."""
    return [
        [{"label": label, "probability": probability} for label, probability in row]
        for row in task.classify(inputs, top_k=2)
    ]


def run_litserve(source: Path, port: int) -> None:
    import litserve

    from benchmarks.serving.litserve_api import ClassifierAPI

    server = litserve.LitServer(ClassifierAPI(source), accelerator="cpu", workers_per_device=1)
    server.run("127.0.0.1", port, log_level="error", generate_client_file=False)


def run_fastapi(source: Path | None, port: int) -> None:
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Body(BaseModel):
        inputs: list[Any]

    app = FastAPI()
    task = None if source is None else load(source)
    constant = [[{"label": "0", "probability": 0.5}, {"label": "1", "probability": 0.5}]]

    @app.post("/predict")
    async def predict(body: Body) -> dict[str, Any]:
        return {"predictions": constant if task is None else classify(task, body.inputs)}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


def load(source: Path) -> Any:
    """Return the task of a checkpoint or of an ONNX folder, with one thread."""
    import torch

    from engine.checkpoint.reading import load_task
    from engine.process import prepare_process
    from modules import Classifier
    from modules.inference.onnx import load_onnx

    prepare_process()
    torch.set_num_threads(1)
    return load_onnx(source) if source.is_dir() else load_task(source, Classifier, "train.py")


if __name__ == "__main__":
    kind, where, port = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if kind == "litserve":
        run_litserve(where, port)
    else:
        run_fastapi(None if kind == "empty" else where, port)
