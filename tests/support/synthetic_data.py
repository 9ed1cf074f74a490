"""Small synthetic data sets in the file formats of the real ones."""

import csv
import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer

from datamodules.classification import ag_news, glue, imdb, sst2
from datamodules.language_modeling.token_shards import DTYPES, ShardWriter, write_index
from datamodules.text.encoding import token_dtype
from datamodules.text.tokenizers import add_end_of_text, character_tokenizer
from datamodules.translation import multi30k
from datamodules.word_vectors import word_benchmarks

SIZES = {"train": 5_600, "t10k": 300}  # 5,000 training images become the validation split


def make_mnist(folder: Path, name: str = "MNIST") -> dict[str, str]:
    """Write the four files of an MNIST whose classes differ in the position of a bright square.

    Returns:
        File name → md5.
    """
    random = np.random.default_rng(0)
    raw = folder / name / "raw"
    raw.mkdir(parents=True)
    checksums = {}
    for split, size in SIZES.items():
        labels = random.integers(0, 10, size, dtype=np.uint8)
        images = random.integers(0, 60, (size, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            row, column = divmod(int(label), 4)
            image[9 * row : 9 * row + 6, 7 * column : 7 * column + 6] = 230
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            file = raw / f"{split}-{kind}-ubyte.gz"
            file.write_bytes(gzip.compress(idx(values), compresslevel=1, mtime=0))
            checksums[file.name] = hashlib.md5(file.read_bytes()).hexdigest()
    return checksums


def idx(values: np.ndarray) -> bytes:
    """Encode in the IDX format: 0, 0, type (8: unsigned byte), dimensions, sizes, data."""
    sizes = np.array(values.shape, dtype=">i4").tobytes()
    return bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()


def make_shards(
    folder: Path, shard_tokens: int = 10_000, tokenizer: Tokenizer | None = None, highest: int = 59
) -> Path:
    """Write 3,000 random training and 400 validation tokens, by default with a vocabulary of 60."""
    alphabet = "".join(map(chr, range(32, 91)))
    made, end = add_end_of_text(tokenizer or character_tokenizer(alphabet))
    dtype = np.dtype(token_dtype(made))
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for split, size in (("train", 3_000), ("val", 400)):
        writer = ShardWriter(folder, split, DTYPES[dtype.name], shard_tokens)
        tokens = random.integers(0, highest + 1, size).astype(dtype)
        tokens[0] = highest
        writer.write(tokens)
        writer.close()
        shards += writer.shards
    write_index(folder, made, end, shards, [{"name": "synthetic", "documents": 1}])
    return folder


def make_image_folder(folder: Path, splits: dict[str, int], side: int = 20) -> Path:
    """Write `<split>/<class>/*.jpg`, so many per class; "" gives `<class>/*.jpg`.

    Ants have a red square, bees a green one; sizes and positions differ.
    """
    random = np.random.default_rng(0)
    for split, number in splits.items():
        for label, name in enumerate(("ants", "bees")):
            (folder / split / name).mkdir(parents=True)
            for i in range(number):
                height, width = random.integers(side, 2 * side, 2)
                pixels = random.integers(0, 90, (height, width, 3), dtype=np.uint8)
                top, left = random.integers(0, side // 2, 2)
                pixels[top : top + side // 2, left : left + side // 2, label] = 240
                Image.fromarray(pixels).save(folder / split / name / f"{i}.jpg", quality=95)
    return folder


TEXT_SETS = ("SST2", "IMDB", "AGNews", "GLUE")
RUNNING_TEXTS = ("ContextWindows", "Cooccurrences")
PAIR_SETS = ("Multi30k",)
CLASS_WORDS = (
    "dull bad awful tedious bland sour",
    "fine good superb moving witty sweet",
    "shares market profit bank trade oil",
    "chip probe virus code robot laser",
)
COMMON = "the a film it is and of this with for 's , . not very plot cast scene made one who"


def make_text(random: np.random.Generator, label: int, words: int) -> str:
    """Return a text of common words and words of the class; the last word is one of the class."""
    class_words = CLASS_WORDS[label].split()
    drawn = [
        random.choice(class_words if random.random() < 0.3 else COMMON.split())
        for _ in range(words - 1)
    ]
    return " ".join([*drawn, random.choice(class_words)])


def make_texts(folder: Path) -> Path:
    """Write a small SST-2, IMDB and AG News (in parts) in the formats of the real files."""
    random = np.random.default_rng(0)

    def labeled(number: int, classes: int, longest: int) -> list[tuple[str, int]]:
        lengths = random.integers(2, longest, number)
        return [
            (make_text(random, n % classes, int(t)), n % classes) for n, t in enumerate(lengths)
        ]

    for name in ("sst2", "imdb", "ag_news"):
        (folder / name).mkdir(parents=True)
    for name, size in (("train.gz", 400), ("dev", 40), ("test", 50)):
        lines = "".join(f"{text} \t{label}\n" for text, label in labeled(size, 2, 20)).encode()
        data = gzip.compress(lines, mtime=0) if name.endswith("gz") else lines
        (folder / "sst2" / f"sentiment-{name}").write_bytes(data)
    with tarfile.open(folder / "imdb" / imdb.LABELED_ONLY, "w:gz", compresslevel=1) as archive:
        for split, size in (("train", 150), ("test", 60)):
            for number, (text, label) in enumerate(labeled(size, 2, 60)):
                data = text.replace(" . ", "<br /><br />").encode()
                kind = ("neg", "pos")[label]
                member = tarfile.TarInfo(f"aclImdb/{split}/{kind}/{number}_{1 + 8 * label}.txt")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    names = ag_news.AGNews.class_names
    described = labeled(150, 4, 30)
    titled = [(f"A title {text}", label) for text, label in [*described[:9], *labeled(90, 4, 30)]]
    tested = [*described[9:12], *labeled(60, 4, 30)]
    tables = {
        ag_news.PARTS[0]: "".join(f"{text}\t{names[label]}\n" for text, label in described),
        ag_news.PARTS[1]: in_csv([(text, str(label)) for text, label in titled]),
        "test.csv.gz": in_csv([(str(label + 1), "Title", text) for text, label in tested]),
    }
    for file, table in tables.items():
        (folder / "ag_news" / file).write_bytes(gzip.compress(table.encode(), mtime=0))
    make_glue(folder / "glue", random)
    make_benchmarks(folder / "word-similarity")
    make_sentence_pairs(folder / "multi30k")
    make_instructions(folder / "instruction")
    make_squad(folder)
    return folder


def make_instructions(folder: Path, size: int = 60) -> Path:
    """Write a small set of instructions: copy a word that follows."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    words = random.choice(ENGLISH.split(), size).tolist()
    records = [
        {"instruction": "Copy the word.", "input": word, "output": f"It is {word}."}
        for word in words
    ]
    pairs = [r | {"chosen": r["output"], "rejected": "I do not know."} for r in records]
    for name, content in (("data", records), ("data-with-preference", pairs)):
        data = gzip.compress(json.dumps(content).encode(), mtime=0)
        (folder / f"rasbt-instruction-{name}.json.gz").write_bytes(data)
    return folder


def make_squad(folder: Path) -> Path:
    """Write small files of SQuAD's form: the color of things; one article is in both files."""

    def article(title: str, number: int) -> dict:
        color, thing = (words.split()[number % 5] for words in (COLORS, "dog ball car hat cup"))
        qas = [
            {"id": f"{title}-{n}", "question": question, "answers": [{"text": color}]}
            for n, question in enumerate([f"What color is the {thing}?", f"How is the {thing}?"])
        ]
        context = f"The {thing} of {title} is {color}."
        return {"title": title, "paragraphs": [{"context": context, "qas": qas}] * 2}

    files = {
        "squad/train-part-44-articles.json.gz": [f"Train_{n}" for n in range(9)] + ["Caf%C3%A9_1"],
        "xquad/xquad.en.json": ["Test_1", "Café_1"],
    }
    for name, titles in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"data": [article(title, n) for n, title in enumerate(titles)]})
        data = content.encode()
        path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return folder


def make_glue(folder: Path, random: np.random.Generator) -> None:
    """Write small GLUE files in which both texts of an equivalent pair have words of one class."""
    for name in (name for name in glue.SHA256 if name.endswith(".gz")):
        task = glue.STSB_TEST if "test" in name else glue.TASKS[TASK_OF[name.partition("/")[0]]]
        rows = [["column"] * (1 + max(task.columns))] * task.header
        for number in range(80 if "train" in name else 20):
            label, topic = number % 2, number // 2 % 2
            if len(task.columns) == 2:  # the label of a single text is its topic
                topic = label
            other = topic if label else 1 - topic
            texts = [make_text(random, topic, 6), make_text(random, other, 8)]
            row = ["-"] * (1 + max(task.columns))
            row[task.columns[0]] = task.labels[label] if task.labels else f"{5 * label:.3f}"
            for column, text in zip(task.columns[1:], texts, strict=False):
                row[column] = text
            rows.append(row)
        data = "".join("\t".join(row) + "\n" for row in rows).encode()
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(gzip.compress(data, mtime=0))


TASK_OF = {task.folder: name for name, task in glue.TASKS.items()}
COLORS = "red green blue white black"
GERMAN = "ein mann hund kind ball läuft sieht wirft und . groß straße"
ENGLISH = "a man dog child ball runs sees throws and . big street"


def make_sentence_pairs(folder: Path) -> Path:
    """Write a small Multi30k: word-by-word translations, capitalized, with umlauts."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name, size in (("train", 260), ("val", 40), ("test_2016_flickr", 30)):
        drawn = [random.integers(0, 12, length) for length in random.integers(1, 9, size)]
        for suffix, words in (("de", GERMAN.split()), ("en", ENGLISH.split())):
            lines = [" ".join(words[word] for word in sentence).capitalize() for sentence in drawn]
            data = ("\n".join(lines) + "\n").encode()
            (folder / f"{name}.{suffix}.gz").write_bytes(gzip.compress(data, mtime=0))
    return folder


def make_benchmarks(folder: Path) -> None:
    """Write small word-vector benchmarks in which words of the same class are similar."""
    folder.mkdir()
    dull, fine = (words.split() for words in CLASS_WORDS[:2])
    pairs = [f"{a}\t{b}\t{score}" for score, other in ((9, dull), (1, fine)) for a, b in
             zip(dull, other[1:] + other[:1], strict=True)]  # fmt: skip
    pairs.append("dull\tunheard\t5")
    questions = [": one Section", *(f"{a} {b} {c} {d}" for a, b, c, d in zip(
        dull, fine, dull[1:], fine[1:], strict=False))]  # fmt: skip
    questions += [": another", "Good fine Bad awful", "unheard fine bad awful"]
    for name, (file, _) in word_benchmarks.FILES.items():
        lines = questions if name == "analogies" else pairs
        (folder / file).write_text("".join(f"{line}\n" for line in lines))


def in_csv(rows: list[tuple[str, ...]]) -> str:
    table = io.StringIO()
    csv.writer(table, quoting=csv.QUOTE_ALL).writerows(rows)
    return table.getvalue()


def patch_checksums(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patch the expected checksums to those of the synthetic texts."""

    def sha256(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    for files in sst2.FILES.values():
        for name in files:
            if (folder / "sst2" / name).exists():
                monkeypatch.setitem(files, name, sha256(folder / "sst2" / name))
    for path in (folder / "glue").glob("*/*.gz"):
        monkeypatch.setitem(glue.SHA256, f"{path.parent.name}/{path.name}", sha256(path))
    monkeypatch.setattr(imdb, "VALIDATION_SIZE", 20)
    archive = folder / "imdb" / imdb.LABELED_ONLY
    monkeypatch.setattr(imdb, "LABELED_ONLY_SHA256", sha256(archive))
    for name, (file, _) in list(word_benchmarks.FILES.items()):
        expected = (file, sha256(folder / "word-similarity" / file))
        monkeypatch.setitem(word_benchmarks.FILES, name, expected)
    for name, known in (("ag_news", ag_news.SHA256), ("multi30k", multi30k.SHA256)):
        for path in (folder / name).iterdir():
            monkeypatch.setitem(known, path.name, sha256(path))
