"""The printable letters that byte-level BPE uses for the 256 byte values, as in GPT-2."""


def byte_alphabet() -> list[str]:
    """Return the letter of each byte: itself if printable, else the next code point from 256."""
    letters = []
    invisible = 0
    for byte in range(256):
        if chr(byte).isprintable() and chr(byte) != " ":
            letters.append(chr(byte))
        else:
            letters.append(chr(256 + invisible))
            invisible += 1
    return letters


LETTER_OF_BYTE = byte_alphabet()
BYTE_OF_LETTER = {letter: byte for byte, letter in enumerate(LETTER_OF_BYTE)}
