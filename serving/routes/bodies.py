"""Read the bodies of requests: JSON, or files of images as multipart/form-data."""

import asyncio
import base64
import binascii
import json
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from serving.errors import Problem, invalid
from serving.settings import Settings

Body = TypeVar("Body", bound=BaseModel)
MAX_FIELDS = 16  # of a form, besides its files


async def read_body(request: Request, model: type[Body], settings: Settings) -> Body:
    """Read and validate a JSON body.

    Raises:
        Problem: If the body is not valid or does not arrive before the deadline.
    """
    try:
        async with asyncio.timeout(settings.deadline):
            content = await request.body()
    except TimeoutError:
        raise Problem(408, "The request did not arrive in time.", "slow") from None
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise _validation_problem(error) from error


async def read_form(
    request: Request, model: type[Body], settings: Settings
) -> tuple[Body, list[bytes]]:
    """Read a form of image files, `files`, and options; return its fields and the files.

    Raises:
        Problem: As `read_body`.
    """
    try:
        async with asyncio.timeout(settings.deadline):
            form = await request.form(max_files=settings.max_items, max_fields=MAX_FIELDS)
            found = form.multi_items()
            files = [await v.read() for _, v in found if isinstance(v, UploadFile)]
    except TimeoutError:
        raise Problem(408, "The request did not arrive in time.", "slow") from None
    options: dict[str, Any] = {name: v for name, v in found if isinstance(v, str)}
    images = [{"image": str(number)} for number in range(len(files))]
    try:
        return model.model_validate(options | {"inputs": images}), files
    except ValidationError as error:
        raise _validation_problem(error) from error


def _validation_problem(error: ValidationError) -> Problem:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        return Problem(400, "The body is not valid JSON.", "malformed")
    details = [
        {"field": ".".join(map(str, one["loc"])) or "body", "message": one["msg"]}
        for one in found[:10]
    ]
    return Problem(422, "The request is not valid.", "invalid", errors=details)


def split_files(inputs: list[Any], settings: Settings) -> tuple[list[Any], list[bytes]]:
    """Return plain inputs, with numbers in place of images, and the decoded images.

    Raises:
        Problem: If a limit is exceeded or an image is not base64.
    """
    if len(inputs) > settings.max_items:
        raise invalid("inputs", f"at most {settings.max_items} inputs are allowed")
    plain: list[Any] = []
    files: list[bytes] = []
    for number, value in enumerate(inputs):
        if isinstance(value, BaseModel):
            plain.append({"image": len(files)})
            files.append(_decode(value.image, number))  # type: ignore[attr-defined]
            continue
        if sum(map(len, [value] if isinstance(value, str) else value)) > settings.max_characters:
            raise invalid(
                f"inputs.{number}", f"at most {settings.max_characters:,} characters are allowed"
            )
        plain.append(value)
    return plain, files


def _decode(text: str, number: int) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise invalid(f"inputs.{number}.image", "is not valid base64") from None


def body_schema(model: type[BaseModel], form: bool = False) -> dict[str, Any]:
    """Return the OpenAPI description of a request body, without references."""
    schema = model.model_json_schema()
    content = {"application/json": {"schema": inline(schema, schema.pop("$defs", {}))}}
    if form:
        files = {"type": "array", "items": {"type": "string", "format": "binary"}}
        properties = json.loads(json.dumps(content["application/json"]["schema"]["properties"]))
        properties = {"files": files} | {n: v for n, v in properties.items() if n != "inputs"}
        content["multipart/form-data"] = {
            "schema": {"type": "object", "properties": properties, "required": ["files"]}
        }
    return {"requestBody": {"required": True, "content": content}}


def inline(schema: Any, definitions: dict[str, Any]) -> Any:
    """Return a JSON schema with its references replaced by what they refer to."""
    if isinstance(schema, list):
        return [inline(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return inline(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {name: inline(part, definitions) for name, part in schema.items()}
