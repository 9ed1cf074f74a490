"""The text of HTML pages and PDF files, with headings as lines of Markdown."""

import re
from pathlib import Path
from typing import Any

# Elements without visible text. Nothing of a page is executed.
INVISIBLE = ("script", "style", "noscript", "template", "svg", "iframe", "object", "head")
HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
BLOCKS = (
    *("address", "article", "aside", "blockquote", "dd", "div", "dl", "dt", "fieldset", "figure"),
    *("footer", "form", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section", "table"),
    *("tr", "ul", "br"),
)


class UnreadableError(Exception):
    """A file whose text cannot be read, with the reason."""


def html_to_text(data: bytes) -> tuple[str, str | None]:
    """Return the visible text of a page and its title.

    Elements that are hidden (`hidden`, `aria-hidden`, `display: none`) are left out: text that no
    reader sees is a common place for instructions to a language model.

    Raises:
        UnreadableError: If it is not text.
    """
    from bs4 import BeautifulSoup

    if b"\0" in data and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableError("not text: it contains zero bytes")
    soup: Any = BeautifulSoup(data, "html.parser")
    if soup.contains_replacement_characters:
        raise UnreadableError("its character encoding cannot be determined")
    title = soup.title.get_text(" ", strip=True) if soup.title else None
    for element in soup.find_all(True):
        if not element.decomposed and (element.name in INVISIBLE or _is_hidden(element)):
            element.decompose()
    for element in soup.find_all(re.compile("^h[1-6]$")):
        heading = " ".join(element.get_text(" ").split())
        element.replace_with(f"\n\n{'#' * int(element.name[1])} {heading}\n\n")
    for element in soup.find_all(BLOCKS):
        element.insert_before("\n" if element.name in ("br", "li", "tr") else "\n\n")
        element.insert_after("\n")
    for element in soup.find_all(("td", "th")):
        element.insert_after("\t")
    lines = (" ".join(line.split()) for line in soup.get_text().split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip(), title or None


def _is_hidden(element: Any) -> bool:
    return (
        element.has_attr("hidden")
        or element.get("aria-hidden") == "true"
        or bool(HIDDEN_STYLE.search(element.get("style") or ""))
    )


def pdf_to_text(
    path: Path, max_pages: int, max_objects: int, max_stream_bytes: int, max_characters: int
) -> tuple[str, str | None]:
    """Return the text of a PDF, its pages separated by form feeds, and its title.

    Args:
        path: The file.
        max_pages: Maximum number of pages.
        max_objects: Maximum number of objects.
        max_stream_bytes: Maximum bytes of one stream after decompression.
        max_characters: Maximum characters of all pages.

    Raises:
        UnreadableError: If the file is damaged, encrypted, has no text or exceeds a limit.
    """
    from pypdf import PdfReader, apply_configuration
    from pypdf.errors import LimitReachedError

    filters = ("zlib", "lzw", "run_length", "array_based_stream", "brotli")
    bounds: Any = {f"{name}_maximum_output_length": max_stream_bytes for name in filters}
    try:
        with path.open("rb") as file, apply_configuration(**bounds):
            reader = PdfReader(file)
            if reader.is_encrypted and not reader.decrypt(""):
                raise UnreadableError("the PDF is encrypted")
            objects = sum(map(len, reader.xref.values())) + len(reader.xref_objStm)
            if objects > max_objects:
                raise UnreadableError(f"{objects:,} objects exceed the limit of {max_objects:,}")
            if (count := len(reader.pages)) > max_pages:
                raise UnreadableError(f"{count:,} pages exceed the limit of {max_pages:,}")
            pages, characters = [], 0
            for page in reader.pages:
                pages.append(page.extract_text())
                characters += len(pages[-1])
                if characters > max_characters:
                    raise UnreadableError(f"its text exceeds {max_characters:,} characters")
            title = reader.metadata.title if reader.metadata else None
    except (UnreadableError, OSError):
        raise
    except LimitReachedError as error:
        raise UnreadableError(f"a stream exceeds {max_stream_bytes:,} bytes: {error}") from error
    except Exception as error:  # pypdf raises many types for damaged files
        reason = str(error).splitlines()[0] if str(error) else "no reason given"
        raise UnreadableError(f"damaged PDF ({type(error).__name__}: {reason})") from error
    text = "\f".join(pages)
    if not text.strip():
        raise UnreadableError("the PDF has no text; scanned pages need text recognition first")
    return text, title or None
