"""The part of OpenAI's API that language models and encoders can answer."""

import base64
import json
import struct
import time
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from serving.errors import Problem, internal_error, invalid
from serving.models import Models
from serving.routes.bodies import body_schema, read_body, split_files
from serving.routes.operations import generation_options

router = APIRouter(prefix="/v1", tags=["OpenAI"])
GREEDY = {"top_k": 1, "temperature": 1.0}
MAX_CHOICES = 8
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": "Error in OpenAI's form"}
    for status in (400, 401, 403, 404, 405, 408, 413, 422, 429, 500, 503, 504)
}


class Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore")  # such as `user`, which has no effect here


class StreamOptions(Lenient):
    include_usage: bool = False


class Common(Lenient):
    model: str
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    seed: int | None = None
    logit_bias: dict[int, Annotated[float, Field(ge=-100, le=100)]] | None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None

    def options(self, max_new_tokens: int, models: Models) -> dict[str, Any]:
        """Return the options of a worker."""
        options: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "stream": self.stream,
            "chat_template": False,
            "top_p": self.top_p,
            "temperature": self.temperature,
        }
        if self.temperature == 0:
            options |= GREEDY
        if self.seed is not None:
            options["seed"] = self.seed % 2**63
        if self.logit_bias:
            options["logit_bias"] = self.logit_bias
        if self.stop:
            options["stop"] = self.stop
        return generation_options(options, models.settings)


class Completion(Common):
    prompt: str | Annotated[list[str], Field(min_length=1)]
    max_tokens: int | None = Field(16, ge=1)
    logprobs: int | None = Field(None, ge=0, le=5)
    echo: Literal[False] | None = None
    suffix: None = None
    best_of: Literal[1] | None = None


class ContentPart(Lenient):
    type: Literal["text"]
    text: str


class ChatMessage(Lenient):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart]


class JsonSchema(Lenient):
    name: str = "answer"
    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(Lenient):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatCompletion(Common):
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None


class Embedding(Lenient):
    model: str
    input: str | Annotated[list[str], Field(min_length=1)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: None = None


@router.post(
    "/completions",
    summary="Continue texts",
    openapi_extra=body_schema(Completion),
    responses=ERRORS,
)
async def completions(request: Request) -> Response:
    models: Models = request.app.state.models
    body = await read_body(request, Completion, models.settings)
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    inputs, _ = split_files([prompt for prompt in prompts for _ in range(body.n)], models.settings)
    options = body.options(body.max_tokens or 16, models)
    if body.logprobs is not None:
        options["logprobs"] = body.logprobs
    writer = Writer("text_completion", "cmpl", body.model, _completion_choice)
    return await _generate(request, body, inputs, options, writer)


@router.post(
    "/chat/completions",
    summary="Answer a conversation",
    openapi_extra=body_schema(ChatCompletion),
    responses=ERRORS,
)
async def chat_completions(request: Request) -> Response:
    models: Models = request.app.state.models
    body = await read_body(request, ChatCompletion, models.settings)
    models.check(body.model, "generate")
    if not models.describe(body.model)["chat"]:
        raise invalid("model", "this model has no chat template; use /v1/completions")
    messages = [_message(message) for message in body.messages]
    if sum(len(message["content"]) for message in messages) > models.settings.max_characters:
        raise invalid("messages", f"at most {models.settings.max_characters:,} characters")
    limit = (
        body.max_completion_tokens or body.max_tokens or min(512, models.settings.max_new_tokens)
    )
    options = body.options(limit, models)
    if body.logprobs:
        options["logprobs"] = body.top_logprobs or 0
    if (form := body.response_format) is not None and form.type != "text":
        if form.type == "json_schema" and form.json_schema is None:
            raise invalid("response_format.json_schema", "Field required")
        schema = form.json_schema.schema_ if form.json_schema else {"type": "object"}
        options["json_schema"] = json.dumps(schema, sort_keys=True)
    writer = Writer("chat.completion", "chatcmpl", body.model, _chat_choice)
    return await _generate(request, body, [messages] * body.n, options, writer)


@router.post(
    "/embeddings",
    summary="Vectors of texts",
    openapi_extra=body_schema(Embedding),
    responses=ERRORS,
)
async def embeddings(request: Request) -> Response:
    models: Models = request.app.state.models
    body = await read_body(request, Embedding, models.settings)
    texts = [body.input] if isinstance(body.input, str) else body.input
    inputs, _ = split_files(texts, models.settings)
    answer = await models.run(request, body.model, "embed", inputs, {})
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(vector, body.encoding_format)}
        for index, vector in enumerate(answer["results"])
    ]
    usage = {"prompt_tokens": answer["tokens"], "total_tokens": answer["tokens"]}
    return JSONResponse({"object": "list", "data": data, "model": body.model, "usage": usage})


def _vector(vector: list[float], form: str) -> Any:
    if form == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _message(message: ChatMessage) -> dict[str, str]:
    content = message.content
    if not isinstance(content, str):
        content = "".join(part.text for part in content)
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": content}


class Writer:
    """Write the answers of one request.

    Args:
        kind: Value of `object`.
        prefix: Beginning of the id.
        model: Name of the model.
        choice: Function that writes a choice.
    """

    def __init__(self, kind: str, prefix: str, model: str, choice: Any) -> None:
        self.choice = choice
        self.kind = kind
        self.head = {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def answer(self, outputs: list[dict[str, Any]]) -> dict[str, Any]:
        choices = [self.choice(index, output, False) for index, output in enumerate(outputs)]
        return self.head | {"object": self.kind, "choices": choices, "usage": usage(outputs)}

    def chunk(self, event: dict[str, Any]) -> dict[str, Any]:
        chunk = ".chunk" if self.kind == "chat.completion" else ""
        choices = [self.choice(event["index"], event, True)]
        return self.head | {"object": f"{self.kind}{chunk}", "choices": choices}


def usage(outputs: list[dict[str, Any]]) -> dict[str, int]:
    """Return the numbers of tokens; choices of the same prompt count it each."""
    prompt = sum(output["prompt_tokens"] for output in outputs)
    completion = sum(output["tokens"] for output in outputs)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _completion_choice(index: int, output: dict[str, Any], chunk: bool) -> dict[str, Any]:
    found = output.get("logprobs")
    entries = [found] if isinstance(found, dict) else found
    logprobs = entries and {
        "tokens": [one["token"] for one in entries],
        "token_logprobs": [one["logprob"] for one in entries],
        "top_logprobs": [{t["token"]: t["logprob"] for t in one["top"]} for one in entries],
    }
    return {
        "index": index,
        "text": output["text"],
        "logprobs": logprobs,
        "finish_reason": output.get("finish_reason"),
    }


def _chat_choice(index: int, output: dict[str, Any], chunk: bool) -> dict[str, Any]:
    found = output.get("logprobs")
    entries = [found] if isinstance(found, dict) else found
    content = entries and [
        _token(one) | {"top_logprobs": [_token(other) for other in one["top"]]} for one in entries
    ]
    message = {"role": "assistant", "content": output["text"]}
    return {
        "index": index,
        "delta" if chunk else "message": message,
        "logprobs": content and {"content": content},
        "finish_reason": output.get("finish_reason"),
    }


def _token(entry: dict[str, Any]) -> dict[str, Any]:
    text = entry["token"]
    return {"token": text, "logprob": entry["logprob"], "bytes": list(text.encode())}


async def _generate(
    request: Request, body: Common, inputs: list[Any], options: dict[str, Any], writer: Writer
) -> Response:
    models: Models = request.app.state.models
    if len(inputs) > models.settings.max_items:
        raise invalid("n", f"at most {models.settings.max_items} choices are allowed")
    if body.stream:
        events = models.stream(request, body.model, "generate", inputs, options)
        first = await anext(events)  # a problem before the first token has its own status
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        chunks = _chunks(first, events, writer, with_usage)
        return StreamingResponse(chunks, media_type="text/event-stream")
    answer = await models.run(request, body.model, "generate", inputs, options)
    return JSONResponse(writer.answer(answer["results"]))


async def _chunks(
    first: dict[str, Any],
    events: AsyncIterator[dict[str, Any]],
    writer: Writer,
    with_usage: bool,
) -> AsyncIterator[str]:
    """Yield server-sent events in OpenAI's form."""
    try:
        event: dict[str, Any] | None = first
        while event is not None:
            if "results" not in event:
                yield _event(writer.chunk(event))
            elif with_usage:
                last = writer.chunk(event | {"index": 0, "text": ""})
                yield _event(last | {"choices": [], "usage": usage(event["results"])})
            event = await anext(events, None)
    except Problem as problem:
        yield _event(problem.document(openai=True))
    except Exception:
        yield _event(internal_error().document(openai=True))
        raise
    yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"
