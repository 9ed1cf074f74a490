"""The documentation of the API as a page that loads nothing from other hosts."""

import json
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

router = APIRouter(include_in_schema=False)
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h2 { font-size: 1.05rem; margin: 2rem 0 0; border-top: 1px solid #8886; padding-top: 1rem; }
code, pre { font: 0.85rem/1.5 ui-monospace, monospace; }
pre { overflow: auto; padding: 0.75rem; background: #8882; border-radius: 0.4rem; }
"""


@router.get("/docs/style.css")
async def style() -> Response:
    return Response(STYLE, media_type="text/css")


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    schema = request.app.openapi()
    parts = [
        _section(method, path, route)
        for path, methods in schema["paths"].items()
        for method, route in methods.items()
    ]
    return HTMLResponse(
        "<!doctype html><html lang=en><meta charset=utf-8><title>API</title>"
        "<meta name=viewport content='width=device-width'>"
        "<link rel=stylesheet href=/docs/style.css>"
        f"<h1>API</h1><p>{escape(schema['info']['description'])}</p>"
        "<p><a href=/openapi.json>OpenAPI document</a></p>" + "".join(parts) + "</html>"
    )


def _section(method: str, path: str, route: dict[str, Any]) -> str:
    text = f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(route['summary'])}</p>"
    for kind, content in route.get("requestBody", {}).get("content", {}).items():
        body = json.dumps(content["schema"].get("properties", {}), indent=2, ensure_ascii=False)
        text += f"<details><summary>{escape(kind)}</summary><pre>{escape(body)}</pre></details>"
    return text
