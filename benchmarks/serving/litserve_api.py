"""The text classifier as LitServe serves it; LitServe sends the class to its worker process."""

from pathlib import Path
from typing import Any

import litserve

from benchmarks.serving.references import classify, load

BATCH_SIZE = 16
BATCH_TIMEOUT = 0.01  # seconds that LitServe waits for a batch to fill


class ClassifierAPI(litserve.LitAPI):
    """Classify one text per request, in batches.

    Args:
        source: A checkpoint or an ONNX folder.
    """

    def __init__(self, source: Path) -> None:
        super().__init__(max_batch_size=BATCH_SIZE, batch_timeout=BATCH_TIMEOUT)
        self.source = source

    def setup(self, device: str) -> None:
        self.task = load(self.source)

    def decode_request(self, request, **kwargs):  # FastAPI would read an annotation
        return request["inputs"][0]

    def predict(self, x: Any, **kwargs: Any) -> Any:
        return classify(self.task, x)

    def encode_response(self, output: Any, **kwargs: Any) -> Any:
        return {"predictions": [output]}
