"""What happens to every request: id, API key, limits, log, metrics, and errors as problems."""

import json
import logging
import secrets
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import Problem, internal_error
from serving.metrics import Metrics
from serving.requests_log import RequestsLog
from serving.security import Keys, RateLimit
from serving.settings import Settings

log = logging.getLogger("serving")
API = "/v1/"
ADMIN = "/versions"
OPENAI = ("/v1/completions", "/v1/chat/completions", "/v1/embeddings")
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'self'; img-src 'self' data: blob:"),
]


class RequestMiddleware:
    """ASGI middleware around the application.

    Args:
        app: The application.
        settings: Settings of the server.
        metrics: Metrics of the server.
        keys: The API keys.
        is_draining: Whether the server is ending; connections are then closed.

    Raises:
        StartError: If the log cannot be written.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        metrics: Metrics,
        keys: Keys,
        is_draining: Callable[[], bool],
    ) -> None:
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self.keys = keys
        self.requests_log = RequestsLog(settings.log_file)
        self.rate_limit = RateLimit(settings.rate_limit)
        self.is_draining = is_draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.monotonic()
        identity = secrets.token_hex(16)
        state = scope.setdefault("state", {})
        state["id"] = identity
        status = 0

        async def respond(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", identity.encode()),
                    *SECURITY_HEADERS,
                ]
                if self.is_draining():
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            try:
                self._check(scope)
                await self.app(scope, self._limited(receive), respond)
            except Problem as problem:
                await send_problem(problem, scope, respond)
            except Exception:
                log.exception("request %s failed", identity)
                if status:  # the response has begun: close the connection
                    raise
                await send_problem(internal_error(), scope, respond)
        finally:
            self._record(scope, status or 499, time.monotonic() - started)

    def _check(self, scope: Scope) -> None:
        path, headers = scope["path"], dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.settings.max_body:
            raise _too_large(self.settings.max_body)
        if not (path.startswith(API) or path == "/metrics"):
            return
        key = self.keys.authenticate(headers.get(b"authorization", b"").decode("latin-1"))
        scope["state"]["key"] = key.name
        if path.endswith(ADMIN) and not key.admin:
            raise Problem(403, "This requires an admin key.", "forbidden")
        client = scope.get("client") or ("",)
        self.rate_limit.check(key.name if self.keys.path else client[0])

    def _limited(self, receive: Receive) -> Receive:
        size = 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.settings.max_body:
                raise _too_large(self.settings.max_body)
            return message

        return limited

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or "other"
        self.metrics.requests.labels(route, str(status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        state = scope["state"]
        if kind := state.get("error"):
            self.metrics.errors.labels(kind).inc()
        self.requests_log.write(
            time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            id=state["id"],
            method=scope["method"],
            route=route,
            status=status,
            seconds=round(seconds, 4),
            model=scope.get("path_params", {}).get("name"),
            key=state.get("key"),
            error=kind,
        )


async def send_problem(problem: Problem, scope: Scope, send: Send) -> None:
    """Send an error as a problem document, or in OpenAI's form on its routes."""
    scope["state"]["error"] = problem.kind
    openai = scope["path"] in OPENAI
    kind = b"application/json" if openai else b"application/problem+json"
    body = json.dumps(problem.document(openai)).encode()
    headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    headers += [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    start = {"type": "http.response.start", "status": problem.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})


def _too_large(limit: int) -> Problem:
    return Problem(413, f"The request is larger than {limit:,} bytes.", "too_large")
