"""`POST /v1/models/{name}/{operation}`: the public methods of tasks, for any model."""

import json
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic_core import to_json

from serving import schemas
from serving.errors import Problem, internal_error, invalid
from serving.models import Models
from serving.routes.bodies import body_schema, read_body, read_form, split_files
from serving.settings import Settings

router = APIRouter(prefix="/v1/models/{name}", tags=["operations"])
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": "Problem",
        "content": {"application/problem+json": {}},
        "model": schemas.ProblemDocument,
    }
    for status in (400, 401, 403, 404, 405, 408, 413, 422, 429, 500, 503, 504)
}
MAX_NEW_TOKENS = 200  # by default
IMAGES = ("classify", "predict")  # operations that also take a form of files


class PlainRoute(APIRoute):
    """A route without dependencies to resolve, which would take longer than the endpoint."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def handle(request: Request) -> Response:
            response: Response = await self.endpoint(request, **request.path_params)
            return response

        return handle


@dataclass(frozen=True)
class Operation:
    """A public method of tasks over HTTP.

    Args:
        summary: Shown in the documentation.
        body: Body of a request: `inputs`, and the keyword arguments of the method.
        response: Body of the response.
        convert: Function from the results of the method, one per input, to that body.
    """

    summary: str
    body: type[BaseModel]
    response: type[BaseModel]
    convert: Callable[[list[Any]], dict[str, Any]]


def _labels(result: Any) -> list[dict[str, Any]]:
    # Without top_k, `classify` of a Classifier returns one pair instead of a list of pairs.
    pairs = [result] if result and isinstance(result[0], str) else result
    return [{"label": label, "probability": p} for label, p in pairs]


def _records(*names: str) -> Callable[[Any], list[dict[str, Any]]]:
    return lambda rows: [dict(zip(names, row, strict=True)) for row in rows]


def _explanation(result: Any) -> dict[str, Any]:
    label, probability, words = result
    records = _records("word", "start", "end", "weight")(words)
    return {"label": label, "probability": probability, "words": records}


def _each(name: str, convert: Callable[[Any], Any] = lambda result: result) -> Callable[..., Any]:
    return lambda results: {name: [convert(result) for result in results]}


OPERATIONS = {
    "classify": Operation(
        "Classes of texts or images and their probabilities",
        schemas.Classify,
        schemas.Predictions,
        _each("predictions", _labels),
    ),
    "explain": Operation(
        "The most probable class of texts and the words that decide",
        schemas.Explain,
        schemas.Explanations,
        _each("explanations", _explanation),
    ),
    "tag": Operation(
        "Named entities of texts",
        schemas.Tag,
        schemas.Entities,
        _each("entities", _records("kind", "text", "start", "end", "probability")),
    ),
    "predict": Operation(
        "A number for each text or image",
        schemas.Predict,
        schemas.Numbers,
        _each("predictions"),
    ),
    "fill_mask": Operation(
        "The most probable tokens of each [MASK] of texts",
        schemas.FillMask,
        schemas.Masks,
        _each("masks", lambda masks: list(map(_records("token", "probability"), masks))),
    ),
    "generate": Operation(
        "Continue texts, or answer them",
        schemas.Generate,
        schemas.GeneratedTexts,
        _each("outputs"),
    ),
    "translate": Operation(
        "Translations of texts",
        schemas.Translate,
        schemas.Translations,
        _each("translations"),
    ),
    "embed": Operation(
        "A vector for each text", schemas.Embed, schemas.Embeddings, _each("embeddings")
    ),
    "nearest": Operation(
        "The most similar words of words",
        schemas.Nearest,
        schemas.Neighbors,
        _each("neighbors", _records("word", "similarity")),
    ),
}


def _add(name: str, operation: Operation) -> None:
    takes_form = name in IMAGES

    async def endpoint(request: Request, name: str) -> Response:
        return await _answer(request, name, operation_name, operation)

    operation_name = name
    endpoint.__name__ = name
    router.add_api_route(
        f"/{name}",
        endpoint,
        route_class_override=PlainRoute,
        methods=["POST"],
        summary=operation.summary,
        response_model=operation.response,
        openapi_extra=body_schema(operation.body, takes_form),
    )


for _name, _operation in OPERATIONS.items():
    _add(_name, _operation)


async def _answer(request: Request, model: str, name: str, operation: Operation) -> Response:
    models: Models = request.app.state.models
    models.check(model, name)  # before the body is read
    kind = request.headers.get("content-type", "")
    if kind.startswith("multipart/form-data") and name in IMAGES:
        body, files = await read_form(request, operation.body, models.settings)
        inputs: list[Any] = [{"image": number} for number in range(len(files))]
    else:
        body = await read_body(request, operation.body, models.settings)
        inputs, files = split_files(body.inputs, models.settings)  # type: ignore[attr-defined]
    options = body.model_dump(exclude={"inputs"}, exclude_none=True)
    if name == "generate":
        options = generation_options(options, models.settings)
    if options.get("stream"):
        events = models.stream(request, model, name, inputs, options, files)
        first = await anext(events)  # a problem before the first token has its own status
        return StreamingResponse(_server_sent(first, events), media_type="text/event-stream")
    answer = await models.run(request, model, name, inputs, options, files)
    content = to_json(operation.convert(answer["results"]))
    return Response(content, media_type="application/json")


def generation_options(options: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Return the options of a worker, and check the limits.

    Raises:
        Problem: If too many tokens are asked for.
    """
    options = {"max_new_tokens": min(MAX_NEW_TOKENS, settings.max_new_tokens)} | options
    if options["max_new_tokens"] > settings.max_new_tokens:
        raise invalid("max_new_tokens", f"at most {settings.max_new_tokens} are allowed")
    if "json_schema" in options:
        options["json_schema"] = json.dumps(options["json_schema"], sort_keys=True)
    stop = options.pop("stop", [])
    return options | {"stop": [stop] if isinstance(stop, str) else stop}


async def _server_sent(
    first: dict[str, Any], events: AsyncIterator[dict[str, Any]]
) -> AsyncIterator[str]:
    """Yield server-sent events: pieces of text, then the outputs, or an error."""
    try:
        event: dict[str, Any] | None = first
        while event is not None:
            if "results" in event:
                yield _event({"outputs": event["results"]}, "done")
            else:
                yield _event({name: event[name] for name in event if name != "id"}, "text")
            event = await anext(events, None)
    except Problem as problem:
        yield _event(problem.document(), "error")
    except Exception:
        yield _event(internal_error().document(), "error")
        raise


def _event(content: dict[str, Any], kind: str) -> str:
    return f"event: {kind}\ndata: {json.dumps(content)}\n\n"
