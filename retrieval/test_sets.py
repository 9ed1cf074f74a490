"""Test sets of retrieval: documents, questions and which documents are relevant."""

import csv
import gzip
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from datamodules.loading.files import default_data_dir
from datamodules.loading.splits import SPLIT_SEED, split_rows
from datamodules.loading.tables import read_records
from datamodules.question_answering.squad import read_squad
from datamodules.text.reading import read_utf8
from engine.errors import UserError
from retrieval.documents import Document

TestSetFormat = Literal["squad", "beir", "cranfield"]


@dataclass(frozen=True)
class Question:
    """A question with its relevant documents.

    Args:
        text: The question.
        relevance: Grade of each relevant document by its name, at least 1.
        answers: Correct answers, where the test set has them: parts of the relevant document.
    """

    text: str
    relevance: Mapping[str, int]
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class TestSet:
    """Documents and questions about them."""

    documents: list[Document]
    questions: list[Question] = field(default_factory=list)

    __test__ = False  # for pytest

    def sample(self, documents: int | None, questions: int | None) -> "TestSet":
        """Return the first documents and a fixed random part of the questions about them."""
        kept = self.documents[:documents]
        names = {document.name for document in kept}
        about = [q for q in self.questions if names.issuperset(q.relevance)]
        if questions is not None and questions < len(about):
            about = [about[row] for row in split_rows(len(about), questions, SPLIT_SEED)[1]]
        return TestSet(kept, about)


def read_test_set(path: str, kind: TestSetFormat, split: str = "test") -> TestSet:
    """Read a test set.

    Args:
        path: File (squad) or folder (beir: corpus.jsonl, queries.jsonl and qrels-SPLIT.tsv or
            qrels/SPLIT.tsv; cranfield: cran.all.1400, cran.qry, cranqrel); files may be compressed.
            A relative path is looked up in the working directory, then in DATA_DIR.
        kind: Form of the files.
        split: Judgements of beir that are used.

    Raises:
        UserError: If a file is missing or has another form.
    """
    if kind not in get_args(TestSetFormat):
        known = ", ".join(get_args(TestSetFormat))
        raise UserError(f"data.format must be one of {known}, got {kind!r}.")
    found = Path(path).expanduser()
    if not found.exists():
        found = Path(default_data_dir()).expanduser() / path
    if not found.exists():
        raise UserError(
            f"data.path {path} exists neither in {Path.cwd()} nor in {found.parent}: name an "
            "existing one, or the folder of the data sets by DATA_DIR=…"
        )
    if kind == "squad":
        return _read_squad(found)
    result = _read_beir(found, split) if kind == "beir" else _read_cranfield(found)
    if not result.questions:
        raise UserError(f"{found} has no judged questions.")
    return result


def _read_squad(path: Path) -> TestSet:
    documents, questions = [], []
    for number, paragraph in enumerate(read_squad(path)):
        name = f"{paragraph.title}#{number}"
        documents.append(Document(name, paragraph.context))
        for question in paragraph.questions:
            questions.append(Question(question.text, {name: 1}, tuple(question.answers)))
    return TestSet(documents, questions)


def _read_beir(folder: Path, split: str) -> TestSet:
    documents = []
    for where, record in read_records(_file(folder, "corpus.jsonl")):
        if isinstance(record, UserError):
            raise record
        if not isinstance(record.get("_id"), str) or not isinstance(record.get("text"), str):
            raise UserError(f"{where} needs the fields _id and text.")
        title = record.get("title")
        text = f"{title}\n\n{record['text']}" if title else record["text"]
        documents.append(Document(record["_id"], text))
    texts = {}
    for _, record in read_records(_file(folder, "queries.jsonl")):
        if isinstance(record, UserError):
            raise record
        texts[record["_id"]] = record["text"]
    names = (f"qrels-{split}.tsv", f"qrels/{split}.tsv")
    qrels = next((path for name in names if (path := folder / name).is_file()), None)
    if qrels is None:
        raise UserError(f"{folder} has neither {' nor '.join(names)}.")
    relevance: dict[str, dict[str, int]] = {}
    rows = csv.DictReader(io.StringIO(read_utf8(qrels)), delimiter="\t")
    for row in rows:
        if int(row["score"]) > 0:
            relevance.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    return TestSet(documents, [Question(texts[key], found) for key, found in relevance.items()])


def _read_cranfield(folder: Path) -> TestSet:
    """Read the collection of Cranfield: documents in SMART's format, queries by position.

    Grades 1 to 4 are relevant, 1 the most; -1 and 5 are not. All count as grade 1 here.
    """
    documents = []
    for number, record in enumerate(_smart(_file(folder, "cran.all.1400")), start=1):
        text = "\n\n".join(part for part in (record.get("T"), record.get("W")) if part)
        documents.append(Document(str(number), text or "(no text)"))
    relevance: dict[int, dict[str, int]] = {}
    for line in _text(_file(folder, "cranqrel")).split("\n"):
        cells = line.split()
        if len(cells) == 3 and cells[2] in ("1", "2", "3", "4"):
            relevance.setdefault(int(cells[0]), {})[cells[1]] = 1
    queries = [record["W"] for record in _smart(_file(folder, "cran.qry"))]
    questions = [
        Question(text, relevance[number])
        for number, text in enumerate(queries, start=1)
        if number in relevance
    ]
    return TestSet(documents, questions)


def _smart(path: Path) -> list[dict[str, str]]:
    """Return the fields of each record: `.I 1`, then `.T`, `.A`, `.B` and `.W` with their lines."""
    records = re.split(r"^\.I\s+\d+\s*$", _text(path), flags=re.MULTILINE)[1:]
    return [
        {
            key: " ".join(value.split())
            for key, value in re.findall(r"^\.([A-Z])\n(.*?)(?=^\.[A-Z]\n|\Z)", record, re.M | re.S)
        }
        for record in records
    ]


def _file(folder: Path, name: str) -> Path:
    found = next((path for end in ("", ".gz") if (path := folder / (name + end)).is_file()), None)
    if found is None:
        raise UserError(f"{folder} has no {name} or {name}.gz.")
    return found


def _text(path: Path) -> str:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return data.decode("utf-8", "replace")
