"""The FastAPI application."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from serving.errors import Problem
from serving.middleware import RequestMiddleware
from serving.models import Models
from serving.routes import admin, answers, docs, health, openai, operations
from serving.routes import models as model_routes
from serving.security import Keys
from serving.settings import Settings

PAGE = Path(__file__).parent / "page"
DESCRIPTION = "Trained models over HTTP. Errors are problem documents (RFC 9457)."


def create_app(settings: Settings, models: Models) -> FastAPI:
    """Return the application.

    Args:
        settings: Settings of the server.
        models: The served models; serving/server.py starts and closes them.

    Raises:
        StartError: If the file of API keys is not valid.
    """

    app = FastAPI(
        title="stepladder",
        version="1",
        description=DESCRIPTION,
        docs_url=None,  # the page of FastAPI loads its scripts from another host
        redoc_url=None,
    )
    app.state.models = models
    # Routers are searched in this order; most requests are operations.
    groups = [operations, health, model_routes, admin, docs]
    for routes in [*groups, answers] if settings.rag else groups:
        app.include_router(routes.router, responses=operations.PROBLEMS)
    app.include_router(openai.router)
    app.add_api_route("/v1/{path:path}", _unknown, methods=["POST"], include_in_schema=False)
    if PAGE.is_dir():
        app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    app.add_exception_handler(Problem, _raise)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_middleware(
        RequestMiddleware,
        settings=settings,
        metrics=models.metrics,
        keys=Keys(settings.keys_file),
        is_draining=lambda: models.draining,
    )
    return app


async def _unknown(path: str) -> None:
    """Answer what would otherwise reach the page, which allows no POST."""
    raise Problem(404, "Not Found.", "unknown")


async def _raise(request: Request, error: Exception) -> Response:
    raise error  # the middleware answers


async def _http_error(request: Request, error: Any) -> Response:
    kind = "unknown" if error.status_code == 404 else "http"
    problem = Problem(error.status_code, f"{error.detail}.", kind)
    problem.headers |= error.headers or {}  # such as Allow
    raise problem


async def _validation_error(request: Request, error: Any) -> Response:
    details = [
        {"field": ".".join(map(str, one["loc"])), "message": one["msg"]} for one in error.errors()
    ]
    raise Problem(422, "The request is not valid.", "invalid", errors=details)
