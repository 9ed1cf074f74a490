"""Liveness, readiness and metrics."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from serving.errors import unavailable

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Whether the process is alive")
async def alive() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz", summary="Whether requests are answered")
async def ready(request: Request) -> Any:
    if not request.app.state.models.ready:
        raise unavailable("The server is starting, restarting or ending.")
    return JSONResponse({"status": "ready"})


@router.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    registry = request.app.state.models.metrics.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
