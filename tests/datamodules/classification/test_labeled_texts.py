"""Texts of one's own: what is read, and what is told with its row when it can't be."""

import gzip
import json
import sys
import types
from pathlib import Path

import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules import HuggingFaceTexts, TextTable
from datamodules.classification.labeled_texts import read_table
from tests.support import ROOT

ROWS = [("a fine film", "good"), ('he said "no", twice', "bad"), ("naïve – but\nfine", "good")]


def read(path: Path) -> list[tuple[str, str]]:
    return [(row.text, row.label) for row in read_table(path, ["text"], "label")]


def written(folder: Path, name: str, data: str | bytes) -> Path:
    data = data.encode() if isinstance(data, str) else data
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder / name


def test_csv_tsv_and_json_lines_say_the_same(tmp_path: Path) -> None:
    table = 'label,text\ngood,a fine film\nbad,"he said ""no"", twice"\ngood,"naïve – but\nfine"\n'
    lines = "\n".join(json.dumps({"label": label, "text": text}) for text, label in ROWS)
    assert read(written(tmp_path, "a.csv", table)) == ROWS
    assert read(written(tmp_path, "a.csv.gz", "\ufeff" + table)) == ROWS  # as Excel saves it
    assert read(written(tmp_path, "a.csv", table.replace("\n", "\r\n"))) == [
        (text.replace("\n", "\r\n"), label) for text, label in ROWS
    ]
    assert read(written(tmp_path, "a.jsonl", lines)) == ROWS
    tabs = "".join(f"{text}\t{label}\n" for text, label in ROWS[:2])
    assert read(written(tmp_path, "a.tsv", f"text\tlabel\n{tabs}")) == ROWS[:2]


def test_a_single_quotation_mark_in_a_tsv_swallows_no_row(tmp_path: Path) -> None:
    path = written(tmp_path, "a.tsv", 'text\tlabel\n"he began\tbad\nfine\tgood\n')
    assert read(path) == [('"he began', "bad"), ("fine", "good")]


def test_a_line_ends_where_the_file_ends_it(tmp_path: Path) -> None:
    rows = [("fine\u2028film\x85", "good"), ("bad\x0c", "bad")]
    table = "".join(f"{text},{label}\n" for text, label in rows)
    assert read(written(tmp_path, "a.csv", f"text,label\n{table}")) == rows


def test_a_text_may_be_longer_than_what_csv_expects(tmp_path: Path) -> None:
    text = "very " * 50_000
    assert read(written(tmp_path, "a.csv", f'text,label\n"{text}",good\n'))[0][0] == text


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.csv", "texts,label\nfine,good\n", r"row 1 .* no column 'text'; it has 'texts', '"),
        ("a.csv", "text,label\nfine,good\nbad\n", r"row 2 \(line 3\) has 1 columns and not the 2"),
        ("a.csv", "text,label\nfine,\n", r"row 1 \(line 2\) has nothing under 'label'"),
        ("a.csv", 'text,label\n"fine,good\n', r"a\.csv, line 2: unexpected end of data"),
        ("a.csv", "text,label\n", "holds no row"),
        ("a.csv", b"text,label\na,good\ncaf\xe9,good\nna\xefve,bad\n", r"line 3 .* 0xe9 .2 such"),
        ("a.jsonl", '{"text": "fine", "label": "good"}\n{"text":', r"row 2 \(line 2\) is no valid"),
        ("a.jsonl", '{"text": "cut \\ud83d", "label": "good"}\n', "half a character, .ud83d"),
        ("a.jsonl", '[1]\n', r"row 1 \(line 1\) is no JSON object"),
        ("a.jsonl", '{"text": null, "label": "good"}\n', r"row 1 .* nothing under 'text'"),
        ("a.txt", "text", "no known kind"),
        ("a.csv.gz", b"", "holds no row"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_with_its_place(tmp_path: Path, name, data, told) -> None:
    with pytest.raises(MisconfigurationException, match=told):
        read(written(tmp_path, name, data))


def test_a_packed_file_that_is_cut_off_is_damaged(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv.gz", "text,label\nfine,good\n" * 100)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(MisconfigurationException, match=r"a\.csv\.gz is damaged or truncated"):
        read(path)


def table_of(folder: Path, name: str, rows: list[tuple[str, str]]) -> str:
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    return str(written(folder, name, "\n".join(lines)))


def test_one_file_is_split_into_three_that_share_nothing(tmp_path: Path) -> None:
    rows = [(f"text {n}", "good" if n % 3 else "bad") for n in range(100)]
    data = TextTable(table_of(tmp_path, "a.jsonl", rows))
    sizes = {split: len(texts.labels) for split, texts in data.texts.items()}
    assert sizes == {"train": 80, "val": 10, "test": 10}
    together = [text for split in data.texts.values() for text in split.texts]
    assert sorted(together) == sorted(text for text, _ in rows)
    assert data.class_names == ["bad", "good"]
    for texts, labels in data.texts.values():
        assert [data.class_names[n] for n in labels] == [dict(rows)[text] for text in texts]


def test_files_that_are_given_are_not_split(tmp_path: Path) -> None:
    rows = [(f"text {n}", str(n % 12)) for n in range(48)]
    files = {
        split: table_of(tmp_path, f"{split}.jsonl", rows) for split in ("train", "val", "test")
    }
    data = TextTable(**files)
    assert data.class_names == [str(n) for n in range(12)]  # as numbers: 2 before 10
    assert all(len(texts.labels) == 48 for texts in data.texts.values())
    assert data.texts["test"].labels == [n % 12 for n in range(48)]


def test_an_unknown_label_is_told_with_its_row(tmp_path: Path) -> None:
    train = table_of(tmp_path, "train.jsonl", [("a", "good"), ("b", "bad")] * 10)
    val = table_of(tmp_path, "val.jsonl", [("a", "good"), ("b", "so-so"), ("c", "so-so")])
    data = TextTable(train, val=val)
    with pytest.raises(
        MisconfigurationException,
        match=r"val\.jsonl, row 2 .* 'so-so', and so have 1 more .* 'bad'",
    ):
        _ = data.texts
    with pytest.raises(MisconfigurationException, match=r"row 2 .*'bad'.* the 1 classes: 'good'"):
        _ = TextTable(train, classes=["good"]).texts


def test_a_single_class_is_nothing_to_learn(tmp_path: Path) -> None:
    data = TextTable(table_of(tmp_path, "a.jsonl", [("a", "good")] * 30))
    with pytest.raises(MisconfigurationException, match=r"All 24 training texts have .* 'good'"):
        _ = data.texts


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--data.train", "nowhere.csv"), "There is no file nowhere.csv"),
        (("--data.val_fraction", "0.6", "--data.test_fraction", "0.5"), "leave nothing to train"),
        (("--data.val_fraction", "1.5"), "val_fraction is 1.5"),
        (("--data.tokenizer", "syllables"), "syllables"),
        (("--data.text_column", "body"), "no column 'body'; it has 'text', 'label'"),
    ],
)
def test_mistakes_of_users_are_one_paragraph(refused, tmp_path: Path, arguments, told) -> None:
    rows = [(f"text {n}", str(n % 2)) for n in range(40)]
    told_so = refused(
        *("fit", "--config", ROOT / "configs/sst2/bag_of_words.yaml"),
        *("--data", "datamodules.TextTable", "--data.train", table_of(tmp_path, "a.jsonl", rows)),
        *arguments,
    )
    assert told in told_so


# The Hugging Face hub, played by a module of that name.


class Table:
    def __init__(self, texts: list[str], labels: list, names: list[str] | None = None) -> None:
        self.columns = {"sentence": texts, "label": labels}
        self.column_names = list(self.columns)
        self.features = {"label": types.SimpleNamespace(names=names), "sentence": None}

    def __getitem__(self, name: str) -> list:
        return self.columns[name]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Table]:
    names = ["against", "for"]
    tables = {
        "train": Table([f"text {n}" for n in range(40)], [n % 2 for n in range(40)], names),
        "validation": Table(["one", "two"], [1, 0], names),
        "test": Table(["three"], [-1], names),  # as GLUE keeps its secrets
    }
    module = types.ModuleType("datasets")

    def load_dataset(name: str, subset: str | None, cache_dir: str) -> dict[str, Table]:
        if name != "nyu-mll/glue":
            raise ConnectionError(f"no {name}\nand many more lines")
        assert subset == "sst2"
        return tables

    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return tables


def test_the_hub_gives_what_has_labels(hub: dict[str, Table]) -> None:
    data = HuggingFaceTexts("nyu-mll/glue", "sst2", text_column="sentence")
    assert data.class_names == ["against", "for"]
    assert data.texts["val"] == (["one", "two"], [1, 0])
    assert len(data.texts["train"].texts) == 36
    assert len(data.texts["test"].texts) == 4  # of the training texts, as the hub's has no labels


def test_mistakes_about_the_hub_are_sentences(hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MisconfigurationException, match=r"'glu' can't be had .*: no glu\. Correct"):
        _ = HuggingFaceTexts("glu").texts
    with pytest.raises(MisconfigurationException, match="no column 'text'; it has 'sentence'"):
        _ = HuggingFaceTexts("nyu-mll/glue", "sst2").texts
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MisconfigurationException, match="pip install datasets"):
        _ = HuggingFaceTexts("nyu-mll/glue", "sst2").texts
