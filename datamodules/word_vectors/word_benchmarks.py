"""What word vectors are asked: how alike are two words, and what is to c as b is to a?"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from datamodules.loading.files import obtain

SIMILARITY_URL = (
    "https://raw.githubusercontent.com/mfaruqui/eval-word-vectors/"
    "94b3dd9fdbac7ed08dbee7179cd5ee464acf0594/data/word-sim/"
)
ANALOGIES_URL = (
    "https://raw.githubusercontent.com/tmikolov/word2vec/20c129af10659f7c50e86e3be406df663beff438/"
)
# Name → file, its sha256.
FILES = {
    "wordsim353": (
        "EN-WS-353-ALL.txt",
        "ce12919b240af45bdf46d243601eaca2b6212b159b5e7e9b435ee7ee40c5619c",
    ),
    "wordsim353_similarity": (
        "EN-WS-353-SIM.txt",
        "f1da938998863c94e53f72f984a5c6e215f0b46c323aae8f0f4930703a339107",
    ),
    "wordsim353_relatedness": (
        "EN-WS-353-REL.txt",
        "66a7c88100624d0a391605ff61ce84e11d11ee620d51ec0298da49592838f8fa",
    ),
    "simlex999": (
        "EN-SIMLEX-999.txt",
        "405394ffb7d25f6d0e3c041f87c9f27d29dc6b047506769953e85c4523b11685",
    ),
    "analogies": (
        "questions-words.txt",
        "8c29b3332afc46f3fb8be04cb5297bf96f39aa7131272dff57869b4485b22a36",
    ),
}


class Questions(NamedTuple):
    """Those questions of a benchmark whose words are all known, and how many there are in all."""

    name: str  # "wordsim353", or "analogies" and a section: "analogies/capital-world"
    words: Tensor  # numbers of the words, (N, 2), or (N, 3) of an analogy
    answers: Tensor  # scores that people gave, (N,), float; or the fourth word, (N,), int64
    asked: int  # questions, those with unknown words among them
    unknown: list[str]  # words that are not in the vocabulary, sorted


def find(name: str, data_dir: Path) -> Path:
    """The file of a benchmark, in `data_dir/word-similarity` or downloaded.

    Raises:
        MisconfigurationException: If there is no such benchmark, or its file can't be had.
    """
    if name not in FILES:
        raise MisconfigurationException(
            f"benchmarks: there is no {name!r}; choose among {', '.join(FILES)}."
        )
    file, sha256 = FILES[name]
    url = (ANALOGIES_URL if name == "analogies" else SIMILARITY_URL) + file
    path = data_dir / "word-similarity" / file
    return obtain(path, [url], f"sha256:{sha256}", offline_config="configs/source/skip_gram.yaml")


def read(name: str, path: Path, vocabulary: Mapping[str, int]) -> list[Questions]:
    """The questions of a benchmark, by sections where it has some.

    WordSim-353 (Finkelstein et al. 2002, in two halves by Agirre et al. 2009) and SimLex-999 (Hill
    et al. 2015) have two words and a score in a line; Google's analogies (Mikolov et al. 2013) four
    words, and `: section` above some lines.

    Args:
        name: The benchmark.
        path: Its file.
        vocabulary: Known words, in small letters, to their numbers.
    """
    sections: dict[str, list[list[str]]] = {}
    section = name
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.lower().split()
        if name == "analogies" and fields[:1] == [":"]:
            section = f"analogies/{'-'.join(fields[1:])}"
        elif len(fields) == (4 if name == "analogies" else 3):
            sections.setdefault(section, []).append(fields)
        elif fields:
            raise MisconfigurationException(
                f"{path}, line {number} is no question of {name}: {line!r}. Get the file anew."
            )
    return [_known(section, rows, vocabulary) for section, rows in sections.items()]


def _known(name: str, rows: list[list[str]], vocabulary: Mapping[str, int]) -> Questions:
    scored = not name.startswith("analogies")
    words = [row[:2] if scored else row for row in rows]
    unknown = sorted({word for row in words for word in row if word not in vocabulary})
    missing = set(unknown)
    known = [n for n, row in enumerate(words) if missing.isdisjoint(row)]
    numbers = torch.tensor([[vocabulary[word] for word in words[n]] for n in known])
    numbers = numbers.long().view(len(known), -1 if known else (2 if scored else 4))
    if scored:
        answers = torch.tensor([float(rows[n][2]) for n in known])
        return Questions(name, numbers, answers, len(rows), unknown)
    return Questions(name, numbers[:, :3], numbers[:, 3], len(rows), unknown)
