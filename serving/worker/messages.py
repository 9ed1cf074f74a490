"""Messages between server and worker: JSON, followed by binary attachments."""

import json
import struct
from collections.abc import Iterator
from typing import Any

HEADER = struct.Struct(">II")  # bytes of the JSON text and of the attachments
Message = dict[str, Any]
ENCODER = json.JSONEncoder(separators=(",", ":"))  # json.dumps would create one per message
# Prefixes of sources that are not models: a folder of rag.py index, the checkpoint of a guard.
INDEX, GUARD = "index:", "guard:"


def pack(message: Message, attachments: list[bytes] | None = None) -> bytes:
    """Return the bytes of a message; `message["sizes"]` are the sizes of the attachments."""
    if attachments:
        message = message | {"sizes": [len(part) for part in attachments]}
    text = ENCODER.encode(message).encode()
    binary = b"".join(attachments or ())
    return HEADER.pack(len(text), len(binary)) + text + binary


def unpack(text: bytes, binary: bytes) -> tuple[Message, list[bytes]]:
    """Return a message and its attachments."""
    message: Message = json.loads(text)
    parts, start = [], 0
    for size in message.pop("sizes", ()):
        parts.append(binary[start : start + size])
        start += size
    return message, parts


class Decoder:
    """Splits a stream of bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, received: bytes) -> Iterator[tuple[Message, list[bytes]]]:
        """Yield the messages that are complete now, with their attachments."""
        self._buffer += received
        while len(self._buffer) >= HEADER.size:
            text, binary = HEADER.unpack_from(self._buffer)
            end = HEADER.size + text + binary
            if len(self._buffer) < end:
                return
            content = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            yield unpack(content[:text], content[text:])
