"""`POST /v1/answer`: questions about the documents of an index."""

from typing import Any

from fastapi import APIRouter, Request

from serving import schemas
from serving.errors import invalid
from serving.models import DOCUMENTS, Models
from serving.routes.bodies import body_schema, read_body

router = APIRouter(prefix="/v1", tags=["documents"])


@router.post(
    "/answer",
    summary="Answer a question about the documents, with citations",
    response_model=schemas.Answered,
    openapi_extra=body_schema(schemas.Question),
)
async def answer(request: Request) -> dict[str, Any]:
    """Answer from the passages of the index; citations are exact characters of documents."""
    models: Models = request.app.state.models
    body = await read_body(request, schemas.Question, models.settings)
    history = [[turn.question, turn.answer] for turn in body.history]
    limit = models.settings.max_characters
    if len(body.question) + sum(len(text) for turn in history for text in turn) > limit:
        raise invalid("question", f"at most {limit:,} characters are allowed, with the history")
    options: dict[str, Any] = {"history": history}
    if body.top_k is not None:
        options["top_k"] = body.top_k
    message = await models.run(request, DOCUMENTS, "answer", [body.question], options)
    found: dict[str, Any] = message["results"][0]
    models.metrics.answers.labels("abstained" if found["abstained"] else "answered").inc()
    return found
