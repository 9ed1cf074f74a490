"""The served models."""

from typing import Any

from fastapi import APIRouter, Request

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", summary="The served models")
async def models(request: Request) -> dict[str, Any]:
    served = request.app.state.models
    described = [served.describe(name) for name in served.versions]
    listed = [{"id": one["name"], "object": "model", **one} for one in described]
    return {"object": "list", "data": listed}


@router.get(
    "/{name}",
    summary="Task, labels, metrics, limits and examples of a model",
)
async def model(request: Request, name: str) -> dict[str, Any]:
    described: dict[str, Any] = request.app.state.models.describe(name)
    return {"id": name, "object": "model", **described}
