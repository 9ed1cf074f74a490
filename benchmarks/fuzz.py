"""Mutated requests to a server: `python -m benchmarks.fuzz [--cases 5000]`.

Valid JSON bodies and PNG files are mutated: bytes are flipped, removed, repeated or inserted, parts
of the JSON are replaced by other values. A server must answer each with a status below 500, errors
as problem documents, and must answer a valid request afterwards.
"""

import argparse
import base64
import collections
import copy
import io
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from benchmarks.serving.load import our_server
from benchmarks.serving.models import make_models

VALUES: list[Any] = [
    *(None, True, 0, -1, 1e308, 2**70, "", "a" * 5000, "\x00", "\ud800", [], {}, [[]], [None]),
    *([["a", "b"]], {"image": "AAAA"}, {"image": 3}, {"text": "a"}, ["a"] * 300),
]
OPTIONS: dict[str, Any] = {"top_k": 2, "max_new_tokens": 2, "temperature": 0.5, "stream": False}


def mutate_bytes(content: bytes, draw: random.Random) -> bytes:
    """Flip, remove, repeat or insert some bytes."""
    mutated = bytearray(content)
    for _ in range(draw.choice((1, 2, 8, 64))):
        position = draw.randrange(len(mutated) + 1)
        size = draw.choice((1, 2, 16))
        kind = draw.randrange(4)
        if kind == 0 and position < len(mutated):
            mutated[position] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del mutated[position : position + size]
        elif kind == 2:
            mutated[position:position] = mutated[position : position + size] * draw.choice((1, 20))
        else:
            mutated[position:position] = draw.randbytes(size)
    return bytes(mutated)


def mutate_json(body: Any, draw: random.Random) -> Any:
    """Replace, add or remove a part of a JSON document."""
    body = copy.deepcopy(body)
    owner: Any = body
    while True:
        keys = list(owner) if isinstance(owner, dict) else list(range(len(owner)))
        if not keys:
            return body
        key = draw.choice(keys)
        if isinstance(owner[key], dict | list) and draw.random() < 0.6:
            owner = owner[key]
            continue
        action = draw.randrange(4)
        if action == 0:
            del owner[key]
        elif action == 1 and isinstance(owner, dict):
            owner[draw.choice(("inputs", "top_k", "stream", "other"))] = draw.choice(VALUES)
        else:
            owner[key] = draw.choice(VALUES)
        return body


def image_file(draw: random.Random) -> bytes:
    """Return a valid PNG, JPEG or GIF file."""
    size = (draw.randrange(1, 40), draw.randrange(1, 40))
    image = Image.new(draw.choice(("L", "RGB")), size, draw.randrange(255))
    buffer = io.BytesIO()
    image.save(buffer, draw.choice(("PNG", "JPEG", "GIF")))
    return buffer.getvalue()


def mutated_request(name: str, operation: str, takes_images: bool, draw: random.Random) -> Any:
    """Return path, content and headers of a request."""
    path = f"/v1/models/{name}/{operation}"
    headers = {"content-type": "application/json"}
    if takes_images and draw.random() < 0.3:
        mutated = mutate_bytes(image_file(draw), draw)
        files = {"files": ("image", mutated, "image/png")}
        request = httpx.Request("POST", "http://host", files=files)
        return path, request.read(), {"content-type": request.headers["content-type"]}
    value: Any = "a good film that was bad"
    if takes_images:
        file = image_file(draw)
        file = mutate_bytes(file, draw) if draw.random() < 0.7 else file
        value = {"image": base64.b64encode(file).decode()}
    kept = {key: v for key, v in OPTIONS.items() if draw.random() < 0.3}
    if operation == "generate":
        kept["max_new_tokens"] = 2
    body = {"inputs": [value], **kept}
    if draw.random() < 0.7:
        body = mutate_json(body, draw)
    content = json.dumps(body).encode()
    if draw.random() < 0.4:
        content = mutate_bytes(content, draw)
    if draw.random() < 0.05:
        headers["content-type"] = draw.choice(("text/plain", "multipart/form-data", "/"))
    return path, content, headers


def fuzz(http: httpx.Client, cases: int, seed: int = 0) -> tuple[collections.Counter, list[str]]:
    """Send mutated requests to all operations of all models of a server.

    Returns:
        The number of answers by status, and descriptions of those that a server must not give.
    """
    draw = random.Random(seed)
    models = http.get("/v1/models").raise_for_status().json()["data"]
    targets = [(m["id"], op, m["input"] == "image") for m in models for op in m["operations"]]
    statuses: collections.Counter = collections.Counter()
    wrong = []
    for number in range(cases):
        path, content, headers = mutated_request(*draw.choice(targets), draw)
        try:
            answer = http.post(path, content=content, headers=headers)
        except httpx.HTTPError as error:
            wrong.append(f"case {number}: {path}: {error!r} for {content[:200]!r}")
            continue
        statuses[answer.status_code] += 1
        kind = answer.headers.get("content-type", "")
        if answer.status_code >= 500 or (answer.is_error and "problem+json" not in kind):
            wrong.append(
                f"case {number}: {path}: {answer.status_code} {kind} {answer.text[:200]} for "
                f"{content[:200]!r}"
            )
    for name, operation, takes_images in targets:
        image = {"image": base64.b64encode(image_file(draw)).decode()}
        options = {"max_new_tokens": 2} if operation == "generate" else {}
        text = "a good [MASK]" if operation == "fill_mask" else "a good film"
        body = {"inputs": [image if takes_images else text], **options}
        answer = http.post(f"/v1/models/{name}/{operation}", json=body)
        if answer.status_code != 200:
            wrong.append(f"afterwards {name}/{operation}: {answer.status_code} {answer.text[:200]}")
    return statuses, wrong


def main(args: list[str] | None = None) -> None:
    """Run the command line; exit with code 1 after a wrong answer."""
    parser = argparse.ArgumentParser("benchmarks.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory() as folder:
        names = ("digits", "texts")
        models = make_models(Path(folder), names=names)
        more = [part for name in names[1:] for part in ("--checkpoint", str(models[name]))]
        named = ["--name", "texts"]
        with our_server(models["digits"], "classify", *more, *named) as server:
            address = server.url.partition("/v1/")[0]
            with httpx.Client(base_url=address, timeout=60) as http:
                statuses, wrong = fuzz(http, options.cases, options.seed)
    print(f"{options.cases:,} cases, answers by status: {dict(sorted(statuses.items()))}")
    print(*wrong[:20], sep="\n")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
