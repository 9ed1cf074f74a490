"""What is wrong with a request is answered by a problem document."""

import tempfile

import pytest

from tests.support import ROOT
from tests.support.requests import encoded, png
from tests.support.server import ServerProcess

REVIEWS, DIGITS = "/v1/models/reviews/classify", "/v1/models/digits/classify"
WRITER = "/v1/models/writer/generate"
CASES = {
    "malformed": (REVIEWS, "{", 400),
    "missing field": (REVIEWS, "{}", 422),
    "unknown field": (REVIEWS, {"inputs": ["a"], "typo": 1}, 422),
    "empty": (REVIEWS, {"inputs": []}, 422),
    "too many": (REVIEWS, {"inputs": ["a"] * 9}, 422),
    "too long": (REVIEWS, {"inputs": ["a" * 1001]}, 422),
    "too large": (REVIEWS, {"inputs": ["a" * 300_000]}, 413),
    "image for a text model": (REVIEWS, {"inputs": [encoded(png())]}, 422),
    "text for an image model": (DIGITS, {"inputs": ["a"]}, 422),
    "not base64": (DIGITS, {"inputs": [{"image": "?"}]}, 422),
    "not an image": (DIGITS, {"inputs": [encoded(b"GIF89a")]}, 422),
    "too many pixels": (DIGITS, {"inputs": [encoded(png(101))]}, 422),
    "unknown model": ("/v1/models/none/classify", {"inputs": ["a"]}, 404),
    "unknown operation": ("/v1/models/reviews/translate", {"inputs": ["a"]}, 404),
    "unknown path": ("/v1/none", {}, 404),
    "temperature": (WRITER, {"inputs": ["a"], "temperature": 0}, 422),
    "lone surrogate": (REVIEWS, '{"inputs": ["\\ud800"]}', 400),
}


@pytest.mark.parametrize("case", CASES)
def test_invalid_request_is_a_problem(server: ServerProcess, case: str) -> None:
    path, body, status = CASES[case]
    options = {"content": body} if isinstance(body, str) else {"json": body}
    response = server.http.post(path, **options)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    for secret in ("Traceback", tempfile.gettempdir(), str(ROOT), ".py", "torch"):
        assert secret not in response.text


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Basic a-secret", "Bearer"])
def test_request_without_a_valid_key_is_refused(
    server: ServerProcess, authorization: str | None
) -> None:
    headers = {"Authorization": authorization or ""}
    for path in ("/v1/models", "/metrics"):
        response = server.http.get(path, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
    assert server.http.get("/healthz", headers=headers).status_code == 200
