"""The operations of the API give the answers of the tasks, through a real server process."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from PIL import Image

from modules import Classifier, LanguageModel, MaskedLanguageModel
from tests.support.requests import TEXTS, encoded, pairs, png
from tests.support.served_models import LABELS, open_embedder
from tests.support.server import ServerProcess
from tests.support.system import START_SECONDS


def test_texts_are_classified_as_by_the_task(server: ServerProcess, sources: dict) -> None:
    task = Classifier.load_from_checkpoint(sources["reviews"], weights_only=True).eval()
    answer = server.post("/v1/models/reviews/classify", {"inputs": TEXTS, "top_k": 2})
    assert pairs(answer["predictions"]) == task.classify(TEXTS, top_k=2)
    best = server.post("/v1/models/reviews/classify", {"inputs": TEXTS})
    assert pairs(best["predictions"]) == [[pair] for pair in task.classify(TEXTS)]


def test_images_are_classified_as_by_the_task(server: ServerProcess, sources: dict) -> None:
    task = Classifier.load_from_checkpoint(sources["digits"], weights_only=True).eval()
    files = [png(8), png(20, 90)]
    expected = task.classify([Image.open(io.BytesIO(file)) for file in files], top_k=3)
    body = {"inputs": [encoded(file) for file in files], "top_k": 3}
    answer = server.post("/v1/models/digits/classify", body)
    assert pairs(answer["predictions"]) == expected
    form = {"files": [("files", (f"{n}.png", file)) for n, file in enumerate(files)]}
    answer = server.post("/v1/models/digits/classify", data={"top_k": "3"}, **form)
    assert pairs(answer["predictions"]) == expected


def test_words_are_explained(server: ServerProcess, sources: dict) -> None:
    task = Classifier.load_from_checkpoint(sources["reviews"], weights_only=True).eval()
    (found,) = server.post("/v1/models/reviews/explain", {"inputs": ["a good film"]})[
        "explanations"
    ]
    ((label, probability),) = task.classify(["a good film"])
    assert (found["label"], found["probability"]) == (label, pytest.approx(probability))
    assert [word["word"] for word in found["words"]] == ["a", "good", "film"]
    without = task.probabilities(["a  film"])[0, LABELS.index(label)].item()
    assert found["words"][1]["weight"] == pytest.approx(probability - without, abs=1e-6)


def test_masks_are_filled_as_by_the_task(server: ServerProcess, sources: dict) -> None:
    task = MaskedLanguageModel.load_from_checkpoint(sources["masks"], weights_only=True).eval()
    texts = ["a [MASK] film", "the [MASK] is a [MASK]"]
    expected = task.fill_mask(texts, top_k=2)
    for top_k in (2, 1000):
        body = {"inputs": texts, "top_k": top_k}
        masks = server.post("/v1/models/masks/fill_mask", body)["masks"]
        found = [[[(t["token"], t["probability"]) for t in mask] for mask in one] for one in masks]
        assert [[mask[:2] for mask in one] for one in found] == expected
    refused = server.http.post("/v1/models/masks/fill_mask", json={"inputs": ["a film"]})
    assert refused.status_code == 422
    assert "no [MASK]" in refused.json()["detail"]


def test_texts_are_embedded_as_by_the_task(server: ServerProcess, sources: dict) -> None:
    expected = open_embedder(sources["embedder"]).embed(TEXTS).tolist()
    assert server.post("/v1/models/embedder/embed", {"inputs": TEXTS})["embeddings"] == expected


@pytest.mark.parametrize("options", [{"top_k": 1}, {"seed": 5, "temperature": 0.8}])
@pytest.mark.parametrize("chat_template", [False, True])
def test_texts_are_generated_as_by_the_task(
    server: ServerProcess, sources: dict, options: dict, chat_template: bool
) -> None:
    task = LanguageModel.load_from_checkpoint(sources["writer"], weights_only=True).eval()
    body = {"inputs": ["Once upon"], "max_new_tokens": 20, "chat_template": chat_template}
    prompt, more = "Once upon", {}
    if chat_template:
        prompt, more = task.chat_prompt([{"role": "user", "content": "Once upon"}])
    expected = task.generate(prompt, 20, **more | options)
    (output,) = server.post("/v1/models/writer/generate", body | options)["outputs"]
    assert output["text"] == expected
    body |= {"stream": True, **options}
    with server.http.stream("POST", "/v1/models/writer/generate", json=body) as response:
        events = response.read().decode().split("\n\n")[:-1]
    data = [json.loads(event.partition("data: ")[2]) for event in events]
    assert "".join(one["text"] for one in data[:-1]) == expected
    assert data[-1]["outputs"] == [output]


def test_models_are_described_and_their_examples_work(server: ServerProcess, sources: dict) -> None:
    listed = server.http.get("/v1/models").json()["data"]
    assert {model["id"] for model in listed} == set(sources)
    for model in listed:
        assert server.http.get(f"/v1/models/{model['id']}").json() == model
        for operation, example in model["examples"].items():
            server.post(f"/v1/models/{model['id']}/{operation}", example)
    text = json.dumps(listed)
    assert not [path for path in sources.values() if str(Path(path).parent) in text]


def test_texts_of_different_lengths_are_generated_together(
    server: ServerProcess, sources: dict
) -> None:
    task = LanguageModel.load_from_checkpoint(sources["writer"], weights_only=True).eval()
    prompts = ["Once upon", "a film that was good, and", "bad", "Once upon a time there was a film"]
    lengths = [40, 3, 70, 20]  # beyond the context of 64 tokens, too

    def send(prompt: str, length: int) -> str:
        body = {"inputs": [prompt], "max_new_tokens": length, "top_k": 1, "chat_template": False}
        answer = httpx.post(
            f"{server.url}/v1/models/writer/generate",
            json=body,
            headers=dict(server.http.headers),
            timeout=START_SECONDS,
        )
        return answer.json()["outputs"][0]["text"]

    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(send, prompts, lengths))
    expected = [task.generate(p, n, top_k=1) for p, n in zip(prompts, lengths, strict=True)]
    assert texts == expected


def test_metrics_count_requests(server: ServerProcess) -> None:
    text = server.http.get("/metrics").text
    for name in ("requests_total", "request_seconds_bucket", "queue_depth", "batch_size_bucket"):
        assert f"stepladder_{name}" in text
    assert server.http.get("/healthz").status_code == 200
    assert server.http.get("/readyz").status_code == 200
