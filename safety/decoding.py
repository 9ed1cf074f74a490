"""Undo encodings that hide what a text asks for: base64 and leetspeak."""

import base64
import binascii
import re

BASE64 = re.compile(r"(?<![\w+/])[A-Za-z0-9+/]{16,}={0,2}(?![\w+/=])")
MIXED_WORD = re.compile(r"\b(?=\w*[A-Za-z])(?=\w*[013457])\w{2,}\b")
LETTERS = str.maketrans("013457", "oieast")
FEWEST_MIXED_WORDS = 3  # fewer are names, such as mp3 and IPv4


def decode(text: str) -> str:
    """Return a text with base64 decoded and leetspeak spelled with letters.

    Texts without these are returned unchanged.
    """
    text = BASE64.sub(_decode_base64, text)
    if len(MIXED_WORD.findall(text)) < FEWEST_MIXED_WORDS:
        return text
    return MIXED_WORD.sub(lambda match: match[0].translate(LETTERS), text)


def _decode_base64(match: re.Match[str]) -> str:
    """Return the text that a string encodes, or the string if that is not readable."""
    try:
        decoded = base64.b64decode(match[0], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return match[0]
    return decoded if decoded.isprintable() or decoded.replace("\n", "").isprintable() else match[0]
