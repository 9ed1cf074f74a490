"""Errors of the service: RFC 9457 problem documents, and OpenAI's form on its routes."""

from http import HTTPStatus
from http.client import responses
from typing import Any

# Types of problems that clients handle; the type of all others is their status.
TYPES = {"refused": "urn:stepladder:refused"}


class StartError(Exception):
    """The server cannot start: the message says what is wrong and what to do."""


class Problem(Exception):
    """A request that is not answered.

    Args:
        status: HTTP status.
        detail: What is wrong and what to do; it is sent to the client.
        kind: Label of the metric `errors`.
        retry_after: Seconds after which the request may succeed.
        errors: Invalid fields: `{"field", "message"}`.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        kind: str,
        retry_after: int | None = None,
        errors: list[dict[str, str]] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = kind
        self.errors = errors
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        if status == HTTPStatus.UNAUTHORIZED:
            self.headers["WWW-Authenticate"] = "Bearer"

    def document(self, openai: bool = False) -> dict[str, Any]:
        """Return the body of the response.

        Args:
            openai: In OpenAI's form instead of RFC 9457's.
        """
        if openai:
            kinds = {400: "invalid_request_error", 404: "invalid_request_error"}
            kinds |= {422: "invalid_request_error", 401: "authentication_error"}
            kinds |= {403: "permission_error", 429: "rate_limit_error"}
            kind = kinds.get(self.status, "api_error")
            field = self.errors[0]["field"] if self.errors else None
            message = self.detail
            if self.errors:
                message += "".join(f" {e['field']}: {e['message']}." for e in self.errors)
            return {"error": {"message": message, "type": kind, "param": field, "code": self.kind}}
        document: dict[str, Any] = {
            "type": TYPES.get(self.kind, "about:blank"),
            "title": responses.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
        }
        return document if self.errors is None else document | {"errors": self.errors}


def internal_error() -> Problem:
    return Problem(500, "The server failed to answer this request.", "internal")


def refused(stage: str) -> Problem:
    """Return the problem of a text that the guard refuses: an `input` or `output` of a model."""
    return Problem(403, f"The guard refuses the {stage}: it may be harmful.", "refused")


def unavailable(detail: str = "The model is restarting; repeat the request.") -> Problem:
    return Problem(503, detail, "unavailable", retry_after=1)


def invalid(field: str, message: str) -> Problem:
    """Return the problem of a request with an invalid field."""
    return Problem(
        422,
        "The request is not valid.",
        "invalid",
        errors=[{"field": field, "message": message}],
    )
