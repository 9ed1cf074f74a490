"""Benchmarks of word vectors: similarity of two words, and analogies (a is to b as c is to …)."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.loading.files import obtain
from engine.errors import UserError

SIMILARITY_URL = (
    "https://raw.githubusercontent.com/mfaruqui/eval-word-vectors/"
    "94b3dd9fdbac7ed08dbee7179cd5ee464acf0594/data/word-sim/"
)
ANALOGIES_URL = (
    "https://raw.githubusercontent.com/tmikolov/word2vec/20c129af10659f7c50e86e3be406df663beff438/"
)
# Name: file, sha256.
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
    """Questions of a benchmark whose words are all in the vocabulary."""

    name: str  # "wordsim353", or "analogies" and a section: "analogies/capital-world"
    words: Tensor  # word indices, (N, 2), or (N, 3) for analogies
    answers: Tensor  # human scores, (N,), float; or the fourth word, (N,), int64
    asked: int  # number of questions, including those with unknown words
    unknown: list[str]  # words outside the vocabulary, sorted


def find(name: str, data_dir: Path) -> Path:
    """Return the file of a benchmark, in `data_dir/word-similarity` or downloaded.

    Raises:
        UserError: If the file cannot be downloaded.
    """
    file, sha256 = FILES[name]
    url = (ANALOGIES_URL if name == "analogies" else SIMILARITY_URL) + file
    path = data_dir / "word-similarity" / file
    return obtain(path, [url], f"sha256:{sha256}", offline_config="configs/source/skip_gram.yaml")


def read(name: str, path: Path, vocabulary: Mapping[str, int]) -> list[Questions]:
    """Read the questions of a benchmark, by section where it has sections.

    WordSim-353 (Finkelstein et al. 2002, split by Agirre et al. 2009) and SimLex-999 (Hill et al.
    2015) have two words and a score per line, Google's analogies (Mikolov et al. 2013) four words,
    with section headings `: name`.

    Args:
        name: Name of the benchmark.
        path: Its file.
        vocabulary: Lower-case words and their indices.
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
            raise UserError(
                f"{path}, line {number} is not a question of {name}: {line!r}. Download it again."
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
