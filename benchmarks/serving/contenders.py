"""Servers to compare with: `python -m benchmarks.serving.contenders KIND SOURCE PORT`.

They run the network of the source with one CPU thread, as our server does in the benchmark.
litserve: LitServe with batches of up to 16 requests. fastapi: one request at a time. empty: FastAPI
without a network, which parses the body and returns two constants.
"""

import sys
from pathlib import Path
from typing import Any

BATCH_SIZE = 16
BATCH_TIMEOUT = 0.01  # seconds that LitServe waits for a batch to fill


def classify(task: Any, inputs: list[str]) -> list[list[dict[str, Any]]]:
    """Return the body of an answer: the two most probable classes of each text."""
    return [
        [{"label": label, "probability": probability} for label, probability in row]
        for row in task.classify(inputs, top_k=2)
    ]


def run_litserve(source: Path, port: int) -> None:
    import litserve

    class API(litserve.LitAPI):
        def setup(self, device: str) -> None:
            self.task = load(source)

        def decode_request(self, request: Any, **kwargs: Any) -> Any:
            return request["inputs"][0]

        def predict(self, x: Any, **kwargs: Any) -> Any:
            return classify(self.task, x)

        def encode_response(self, output: Any, **kwargs: Any) -> Any:
            return {"predictions": [output]}

    api = API(max_batch_size=BATCH_SIZE, batch_timeout=BATCH_TIMEOUT)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
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
