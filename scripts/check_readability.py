"""Check that the sentences of the course's pages are short: `python -m scripts.check_readability`.

Code, formulas, tables and links are left out. The number of words of a sentence is the part of the
usual readability indices (Flesch 1948) that does not punish technical terms.
"""

import re
import sys

from scripts.pages import DAYS

MAX_MEAN = 18.0  # words of a sentence, over a page
MAX_WORDS = 45  # of any sentence
NOT_PROSE = re.compile(
    r"^---\n.*?^---$|^```.*?^```$|\$\$.*?\$\$|^#[^\n]*$|^\|[^\n]*$|^- [^\n]*$|^\*Time[^\n]*$",
    re.MULTILINE | re.DOTALL,
)


def sentences(page: str) -> list[list[str]]:
    """Return the words of each sentence of a page, up to its list of reading."""
    text = NOT_PROSE.sub("\n\n", page.partition("\n## Reading")[0])
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\$[^$]*\$|`[^`]*`", "this", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    parts = re.split(r"(?<=[.!?:;])\s|\n\s*\n", text)
    return [words for part in parts if (words := re.findall(r"[\w'’-]+", part))]


def problems(page: str) -> list[str]:
    """Return what makes a page hard to read."""
    lengths = {" ".join(words): len(words) for words in sentences(page)}
    mean = sum(lengths.values()) / max(len(lengths), 1)
    found = [f"{mean:.0f} words a sentence"] if mean > MAX_MEAN else []
    return found + [f"{n} words: {text[:60]} …" for text, n in lengths.items() if n > MAX_WORDS]


def main() -> int:
    """Print the problems of all pages; return the exit code."""
    found = [
        f"{path.name}: {problem}"
        for path in sorted(DAYS.glob("*.md"))
        for problem in problems(path.read_text(encoding="utf-8"))
    ]
    print("\n".join(found), end="\n" if found else "")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
