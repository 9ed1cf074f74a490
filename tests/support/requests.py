"""Inputs of requests to the server, and parts of its answers."""

import base64
import io

from PIL import Image

TEXTS = ["a good film", "the film was very bad", "good"]


def png(size: int = 8, value: int = 200) -> bytes:
    image = Image.new("L", (size, size), value)
    image.putpixel((1, 2), 0)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def encoded(content: bytes) -> dict[str, str]:
    return {"image": base64.b64encode(content).decode()}


def pairs(predictions: list) -> list:
    return [[(one["label"], one["probability"]) for one in row] for row in predictions]
