"""Messages between server and worker: JSON, followed by binary attachments."""

import json
import socket
import struct
from typing import Any

HEADER = struct.Struct(">II")  # bytes of the JSON text and of the attachments
Message = dict[str, Any]


def pack(message: Message, attachments: list[bytes] | None = None) -> bytes:
    """Return the bytes of a message; `message["sizes"]` are the sizes of the attachments."""
    if attachments:
        message = message | {"sizes": [len(part) for part in attachments]}
    text = json.dumps(message, separators=(",", ":")).encode()
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


def receive(connection: socket.socket) -> tuple[Message, list[bytes]] | None:
    """Return the next message and its attachments, or None at the end of the connection."""
    header = _read(connection, HEADER.size)
    if header is None:
        return None
    sizes = HEADER.unpack(header)
    text, binary = (_read(connection, size) for size in sizes)
    return None if text is None or binary is None else unpack(text, binary)


def _read(connection: socket.socket, size: int) -> bytes | None:
    buffer = bytearray()
    while len(buffer) < size:
        part = connection.recv(size - len(buffer))
        if not part:
            return None
        buffer += part
    return bytes(buffer)
