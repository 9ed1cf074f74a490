"""Training data for encoder, reader and guard from documents without labels, and from SQuAD."""

import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.loading.files import default_data_dir
from datamodules.question_answering.squad import Paragraph, read_squad
from datamodules.text.tokenizer_files import find_tokenizer, load_tokenizer
from engine.errors import UserError
from pipelines.capstone.settings import Squad
from pipelines.files import write_json
from retrieval.chunks import ChunkSplitter
from retrieval.documents import Document
from retrieval.encoders import MINILM
from safety import guard_data
from safety.guard import HARMFUL, HARMLESS
from safety.guard_data import Prompt

CODE = re.compile(r"`([^`\n]{3,40})`")
UNITS = "%|ms|MB|GB|GiB|seconds|minutes|hours|tokens|points"
NUMBER = re.compile(rf"(?<![\w.-])(?:\d[\d,.]*\d|\d(?= \w))(?: (?:{UNITS})\b)?")
NAME = re.compile(r"(?<!^)(?<![.!?] )\b[A-Z][a-z]+(?: [A-Z][a-z]+)+\b")
WORDS = (6, 45)  # of a sentence that becomes a query or a question
CLASSES = (HARMLESS, HARMFUL, "injection", "toxic")
QUERIES = 3  # sentences of a chunk that become queries
VALIDATION = 8  # every eighth chunk or paragraph


class Asked(NamedTuple):
    """A question of the evaluation."""

    question: str
    answer: str | None  # None: the documents do not answer it
    document: str | None = None


class Section(NamedTuple):
    """A chunk of a document with its sentences."""

    document: str
    heading: str
    text: str
    sentences: list[str]


def sections(documents: Sequence[Document]) -> Iterator[Section]:
    """Yield the chunks of documents, as the index has them."""
    found = find_tokenizer(MINILM, (), Path(default_data_dir()))
    assert found is not None
    splitter = ChunkSplitter(load_tokenizer(found))
    for document in documents:
        for chunk in splitter.split(document.text):
            text = document.text[chunk.start : chunk.end]
            sentences = [document.text[slice(*span)] for span in chunk.sentences]
            yield Section(document.name, chunk.heading, text, sentences)


def is_prose(sentence: str) -> bool:
    """Return whether a sentence is one of words, not a row of a table or code."""
    few, many = WORDS
    return few <= len(sentence.split()) <= many and "|" not in sentence and "```" not in sentence


def sentence_pairs(found: Sequence[Section], seed: int = 0) -> list[dict[str, str]]:
    """Return pairs of a sentence and the rest of its chunk (inverse cloze, Lee et al. 2019)."""
    random_ = random.Random(seed)
    pairs = []
    for section in found:
        prose = [sentence for sentence in section.sentences if is_prose(sentence)]
        number = min(QUERIES, len(prose), len(section.sentences) // 2)
        chosen = random_.sample(prose, number)
        # One passage for all of them: nearly equal ones would be negatives of each other.
        rest = " ".join(one for one in section.sentences if one not in chosen)
        passage = f"{section.heading}\n{rest}"
        pairs += [{"query": " ".join(one.split()), "passage": passage} for one in chosen]
    return pairs


def cloze_questions(found: Sequence[Section], seed: int = 0) -> list[dict[str, Any]]:
    """Return a question per chunk in SQuAD's form: a sentence with `what` in place of the answer.

    Lewis et al. 2019, "Unsupervised question answering by cloze translation". Answers are code,
    numbers and names.
    """
    random_ = random.Random(seed)
    articles = []
    for number, section in enumerate(found):
        candidates = []
        for sentence in filter(is_prose, section.sentences):
            for match in [m for p in (CODE, NUMBER, NAME) for m in p.finditer(sentence)]:
                start, end = match.span(match.lastindex or 0)
                question = f"{sentence[:start]}what{sentence[end:]}".replace("`", "")
                candidates.append((sentence, start, end, question))
        if not candidates:
            continue
        sentence, start, end, question = random_.choice(candidates)
        answer = {
            "text": sentence[start:end],
            "answer_start": section.text.index(sentence) + start,
        }
        question = " ".join(question.split()).rstrip(".:;!?") + "?"
        qas = [{"id": f"cloze-{number}", "question": question, "answers": [answer]}]
        paragraph = {"context": section.text, "qas": qas}
        title = f"{section.document} {number}"
        articles.append({"title": title, "document": section.document, "paragraphs": [paragraph]})
    return articles


def questions_of(articles: Sequence[dict[str, Any]]) -> list[str]:
    """Return the questions of articles in SQuAD's form, one per article."""
    return [article["paragraphs"][0]["qas"][0]["question"] for article in articles]


def squad_articles(paragraphs: Sequence[Paragraph]) -> list[dict[str, Any]]:
    """Return paragraphs in SQuAD's form, each with its first question."""
    articles = []
    for paragraph in paragraphs:
        question = paragraph.questions[0]
        start = question.starts[0] if question.starts else None
        answer = {"text": question.answers[0], "answer_start": start}
        qas = [{"id": question.id, "question": question.text, "answers": [answer]}]
        content = {"context": paragraph.context, "qas": qas}
        articles.append({"title": paragraph.title, "paragraphs": [content]})
    return articles


def find_squad(name: str) -> Path | None:
    """Return a file of the folder of the data sets, if it is there."""
    path = Path(default_data_dir()).expanduser() / name
    return path if path.is_file() else None


def squad_documents(squad: Squad) -> tuple[list[Document], list[Asked]]:
    """Return paragraphs to index, and a question for some of them; none without the data."""
    path = find_squad(squad.test)
    if path is None:
        return [], []
    paragraphs = read_squad(path)
    paragraphs = paragraphs[:: max(1, len(paragraphs) // max(1, squad.paragraphs))]
    documents, asked = [], []
    for number, paragraph in enumerate(paragraphs[: squad.paragraphs]):
        name = f"{squad.test}#{number}"
        documents.append(Document(name, paragraph.context, {"title": paragraph.title}))
        question = paragraph.questions[0]
        asked.append(Asked(question.text, question.answers[0], name))
    return documents, asked[: squad.questions]


def write_training_data(
    found: Sequence[Section], squad: Squad, folder: Path, limit: int | None
) -> dict[str, Any]:
    """Write pairs.jsonl, reader_train.json, reader_val.json and guard/, and return what they hold.

    Args:
        found: Chunks of the documents.
        squad: Data of SQuAD's form.
        folder: Folder to write to.
        limit: Paragraphs of SQuAD that are used; all by default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = find_squad(squad.train)
    paragraphs = [] if path is None else read_squad(path)
    step = 1 if limit is None else max(1, len(paragraphs) // limit)
    paragraphs = paragraphs[::step]
    pairs = sentence_pairs(found)
    pairs += [{"query": p.questions[0].text, "passage": p.context} for p in paragraphs]
    lines = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    (folder / "pairs.jsonl").write_text(lines, encoding="utf-8")
    cloze = cloze_questions(found)
    articles = squad_articles(paragraphs) if paragraphs else cloze
    # Articles of the validation are not trained on: paragraphs of an article stay together.
    titles = sorted({article["title"] for article in articles})
    held_out = set(titles[::VALIDATION])
    for split, chosen in (("train", set(titles) - held_out), ("val", held_out)):
        kept = [article for article in articles if article["title"] in chosen]
        write_json(folder / f"reader_{split}.json", {"data": kept})
    return {
        "pairs": len(pairs),
        "questions": len(articles),
        "reader_data": squad.train if paragraphs else "sentences of the documents with `what`",
        "guard_data": write_guard_data(questions_of(cloze), folder / "guard"),
        "guard_classes": [*CLASSES] if has_guard_data() else [*CLASSES[:-1]],
    }


def has_guard_data() -> bool:
    """Return whether the folder of the data sets has those of safety.guard_data."""
    data_dir = Path(default_data_dir()).expanduser()
    return all((data_dir / name).is_file() for name in guard_data.SHA256)


def found_data_sets(squad: Squad) -> list[bool]:
    """Return which data sets are used."""
    return [find_squad(squad.train) is not None, has_guard_data()]


def write_guard_data(questions: Sequence[str], folder: Path) -> str:
    """Write train.csv, val.csv and test.csv, and return where they come from.

    Args:
        questions: Harmless questions about the documents.
        folder: Folder to write to.
    """
    if has_guard_data():
        guard_data.main(["--output", str(folder)])
        return "safety.guard_data"
    rows = guard_data.harmful_examples()
    rows += guard_data.sample(guard_data.harmless_forms(), len(rows))
    rows += [Prompt(text, HARMLESS, "alarming") for text in guard_data.alarming_prompts()[::4]]
    rows += [Prompt(text, HARMLESS, "documents") for text in questions[: len(rows) // 4]]
    rows = list(dict.fromkeys(rows))
    random.Random(0).shuffle(rows)
    folder.mkdir(parents=True, exist_ok=True)
    bounds = [0, int(0.6 * len(rows)), int(0.8 * len(rows)), len(rows)]
    for number, split in enumerate(("train", "val", "test")):
        kept = rows[bounds[number] : bounds[number + 1]]
        guard_data.write_table(folder / f"{split}.csv", kept)
    return "safety/prompts"


def read_questions(path: str | Path) -> list[Asked]:
    """Return the questions of a file of JSON lines.

    Raises:
        UserError: If it cannot be read, or a line has another form.
    """
    asked = []
    try:
        for line in Path(path).expanduser().read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            asked.append(Asked(record["question"], record["answer"], record.get("document")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: cannot read the questions ({error!r}); a line is "
            '{"question": "…", "answer": "…" or null, "document": "…"}.'
        ) from error
    return asked
