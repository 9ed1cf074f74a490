"""Replace a model while it is served."""

from typing import Any

from fastapi import APIRouter, Request

from serving.models import Models
from serving.routes.bodies import body_schema, read_body
from serving.schemas import Strict

router = APIRouter(prefix="/v1/models/{name}", tags=["models"])


class NewVersion(Strict):
    checkpoint: str


@router.post(
    "/versions",
    summary="Replace the model by another one, with an admin key",
    openapi_extra=body_schema(NewVersion),
)
async def versions(request: Request, name: str) -> dict[str, Any]:
    """Load a model beside the current one, run it once, and then send it all new requests."""
    models: Models = request.app.state.models
    models.describe(name)
    body = await read_body(request, NewVersion, models.settings)
    return await models.swap(name, body.checkpoint)
