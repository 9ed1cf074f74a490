"""Tables of texts: rows, targets and splits, and errors that name the row."""

import gzip
import json
import sys
import types
from pathlib import Path

import pytest
import torch

from datamodules import HuggingFaceTexts, TextTable
from datamodules.loading.tables import read_table
from engine.errors import UserError
from tests.support import ROOT

ROWS = [("a fine film", "good"), ('he said "no", twice', "bad"), ("naïve – but\nfine", "good")]


def read(path: Path) -> list[tuple[str, str]]:
    return [(row.text, row.label) for row in read_table(path)]


def write(folder: Path, name: str, data: str | bytes) -> Path:
    data = data.encode() if isinstance(data, str) else data
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder / name


def test_csv_tsv_and_json_lines_give_the_same_rows(tmp_path: Path) -> None:
    table = 'label,text\ngood,a fine film\nbad,"he said ""no"", twice"\ngood,"naïve – but\nfine"\n'
    lines = "\n".join(json.dumps({"label": label, "text": text}) for text, label in ROWS)
    assert read(write(tmp_path, "a.csv", table)) == ROWS
    assert read(write(tmp_path, "a.csv.gz", "\ufeff" + table)) == ROWS  # as Excel saves it
    assert read(write(tmp_path, "a.csv", table.replace("\n", "\r\n"))) == [
        (text.replace("\n", "\r\n"), label) for text, label in ROWS
    ]
    assert read(write(tmp_path, "a.jsonl", lines)) == ROWS
    tabs = "".join(f"{text}\t{label}\n" for text, label in ROWS[:2])
    assert read(write(tmp_path, "a.tsv", f"text\tlabel\n{tabs}")) == ROWS[:2]


def test_quotation_mark_in_tsv_is_plain_text(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", 'text\tlabel\n"he began\tbad\nfine\tgood\n')
    assert read(path) == [('"he began', "bad"), ("fine", "good")]


def test_unicode_line_separators_do_not_end_a_row(tmp_path: Path) -> None:
    rows = [("fine\u2028film\x85", "good"), ("bad\x0c", "bad")]
    table = "".join(f"{text},{label}\n" for text, label in rows)
    assert read(write(tmp_path, "a.csv", f"text,label\n{table}")) == rows


def test_text_longer_than_csv_field_limit_is_read(tmp_path: Path) -> None:
    text = "very " * 50_000
    assert read(write(tmp_path, "a.csv", f'text,label\n"{text}",good\n'))[0][0] == text


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", "texts,label\nfine,good\n", r"row 1 .* no column 'text'; it has 'texts', '"),
        ("a.csv", "text,label\nfine,good\nbad\n", r"row 2 \(line 3\) has 1 columns, the header"),
        ("a.csv", "text,label\nfine,\n", r"row 1 \(line 2\), 'label' is empty"),
        ("a.csv", 'text,label\n"fine,good\n', r"a\.csv, line 2: unexpected end of data"),
        ("a.csv", "text,label\n", "has no rows"),
        ("a.csv", b"text,label\na,good\ncaf\xe9,good\nna\xefve,bad\n", r"line 3 .* 0xe9 .2 such"),
        ("a.jsonl", '{"text": "fine", "label": "good"}\n{"text":', r"row 2 .* is not valid"),
        ("a.jsonl", '{"text": "cut \\ud83d", "label": "good"}\n', "half a character, .ud83d"),
        ("a.jsonl", '[1]\n', r"row 1 \(line 1\) is not a JSON object"),
        ("a.jsonl", '{"text": null, "label": "good"}\n', r"row 1 .*, 'text' is empty"),
        ("a.txt", "text", "unknown format"),
        ("a.csv", "label,text,label\nx,fine,good\n", "two columns named 'label'"),
        ("a.jsonl", '{"text": "a", "label": "x", "label": "y"}', "field 'label' twice"),
        ("a.jsonl", '{"text": "a", "label": ["x"]}', r"is a list: use --data.target labels"),
        ("a.jsonl", '{"text": {"a": 1}, "label": "x"}', r"'text' is a JSON object"),
        ("a.csv", "text,label\nfine,good\n".encode("utf-16"), "is UTF-16, not UTF-8.*iconv"),
        ("a.csv.gz", b"", "has no rows"),
    ],
)  # fmt: skip
def test_invalid_file_or_row_is_named(tmp_path: Path, name, data, message) -> None:
    with pytest.raises(UserError, match=message):
        read(write(tmp_path, name, data))


def test_truncated_gzip_file_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv.gz", "text,label\nfine,good\n" * 100)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"a\.csv\.gz is damaged or truncated"):
        read(path)


def write_table(folder: Path, name: str, rows: list[tuple[str, str]]) -> str:
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    return str(write(folder, name, "\n".join(lines)))


def test_single_file_is_split_into_disjoint_stratified_splits(tmp_path: Path) -> None:
    rows = [(f"text {n}", "good" if n % 3 else "bad") for n in range(100)]
    data = TextTable(write_table(tmp_path, "a.jsonl", rows))
    sizes = {split: len(texts.labels) for split, texts in data.texts.items()}
    assert sizes == {"train": 80, "val": 10, "test": 10}
    together = [text for split in data.texts.values() for text in split.texts]
    assert sorted(together) == sorted(text for text, _ in rows)
    assert data.class_names == ["bad", "good"]
    for texts, labels in data.texts.values():
        assert [data.class_names[n] for n in labels] == [dict(rows)[text] for text in texts]


def test_given_split_files_are_used_as_they_are(tmp_path: Path) -> None:
    rows = [(f"text {n}", str(n % 12)) for n in range(48)]
    files = {
        split: write_table(tmp_path, f"{split}.jsonl", rows) for split in ("train", "val", "test")
    }
    data = TextTable(**files)
    assert data.class_names == [str(n) for n in range(12)]  # as numbers: 2 before 10
    assert all(len(texts.labels) == 48 for texts in data.texts.values())
    assert data.texts["test"].labels == [n % 12 for n in range(48)]


def test_unknown_label_names_its_row(tmp_path: Path) -> None:
    train = write_table(tmp_path, "train.jsonl", [("a", "good"), ("b", "bad")] * 10)
    val = write_table(tmp_path, "val.jsonl", [("a", "good"), ("b", "so-so"), ("c", "so-so")])
    data = TextTable(train, val=val)
    with pytest.raises(
        UserError,
        match=r"val\.jsonl, row 2 .* 'so-so' .1 more .* 'bad'",
    ):
        _ = data.texts
    with pytest.raises(UserError, match=r"row 2 .*'bad'.* the 1 classes: 'good'"):
        _ = TextTable(train, classes=["good"]).texts


SCALARS = [1, 1.0, "1 ", True, "  a b "]


def test_labels_are_stripped_and_json_numbers_are_canonical(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({"text": "t", "label": label}) for label in SCALARS)
    labels = [label for _, label in read(write(tmp_path, "a.jsonl", lines))]
    assert labels == ["1", "1", "1", "true", "a b"]
    assert read(write(tmp_path, "a.csv", "text,label\nt,pos \nt,pos\n")) == [("t", "pos")] * 2


def test_labels_that_are_the_same_number_are_an_error(tmp_path: Path) -> None:
    rows = [("a", "1"), ("b", "1.0"), ("c", "2")]
    with pytest.raises(UserError, match=r"'1' and '1.0' are the same number"):
        _ = TextTable(write_table(tmp_path, "a.jsonl", rows)).class_names


def test_repeated_class_is_an_error(tmp_path: Path) -> None:
    path = write_table(tmp_path, "a.jsonl", [("a", "neg"), ("b", "pos")])
    with pytest.raises(UserError, match=r"data.classes has 'pos' more than once"):
        _ = TextTable(path, classes=["pos", "neg", "pos"]).class_names


def test_bad_rows_are_skipped_and_counted_on_request(tmp_path: Path) -> None:
    lines = 'text,label\na,x\n,\nb,y\nc\n"d" d,x\ne,y\n'
    path = write(tmp_path, "a.csv", lines)
    with pytest.warns(UserWarning, match=r"a.csv: skipped 3 of 6 rows. The first: .*row 2"):
        rows = read_table(path, skip_bad_rows=True)
    assert [(row.text, row.label) for row in rows] == [("a", "x"), ("b", "y"), ("e", "y")]


def test_split_keeps_a_row_of_each_class_in_training(tmp_path: Path) -> None:
    rows = [(f"text {n}", "common" if n else "rare") for n in range(40)]
    texts = TextTable(write_table(tmp_path, "a.jsonl", rows)).texts
    counts = {split: [part.labels.count(n) for n in (0, 1)] for split, part in texts.items()}
    assert counts == {"train": [31, 1], "val": [4, 0], "test": [4, 0]}


def test_too_few_rows_to_split_is_an_error(tmp_path: Path) -> None:
    rows = [("a", "pos"), ("b", "neg"), ("c", "pos"), ("d", "neg")]
    with pytest.raises(UserError, match="4 labeled texts are too few to train, validate and test"):
        _ = TextTable(write_table(tmp_path, "a.jsonl", rows)).texts


def test_number_target_gives_float_targets(tmp_path: Path) -> None:
    rows = [(f"text {n}", n / 2) for n in range(20)]
    data = TextTable(write_table(tmp_path, "a.jsonl", rows), target="number", batch_size=4)
    data.setup("fit")
    _, targets = next(iter(data.train_dataloader()))
    assert (targets.dtype, targets.shape) == (torch.float32, (4,))
    assert (data.num_classes, data.class_names) == (1, ["label"])
    bad = write_table(tmp_path, "b.jsonl", [("a", 1), ("b", "many")])
    with pytest.raises(UserError, match=r"row 2 .* is 'many'; --data.target number needs"):
        _ = TextTable(bad, target="number").texts


def test_labels_target_gives_multi_hot_targets(tmp_path: Path) -> None:
    labels = [["art", "war"], [], ["war"], "art; sea"]
    rows = [(f"text {n}", labels[n % 4]) for n in range(20)]
    data = TextTable(write_table(tmp_path, "a.jsonl", rows), target="labels", batch_size=8)
    data.setup("fit")
    assert data.class_names == ["art", "sea", "war"]
    _, targets = next(iter(data.train_dataloader()))
    assert (targets.dtype, targets.shape) == (torch.float32, (8, 3))
    encoded = [[0, 2], [], [2], [0, 1]]
    for text, labels_of_text in zip(*data.texts["train"], strict=True):
        assert labels_of_text == encoded[int(text.split()[1]) % 4]
    assert sum(data.class_counts) == data.splits["train"].labels.sum()


def test_balanced_sampling_draws_classes_equally_often(tmp_path: Path) -> None:
    rows = [(f"text {n}", "rare" if n % 10 == 0 else "common") for n in range(500)]
    path = write_table(tmp_path, "a.jsonl", rows)
    counts = {}
    for balanced in (False, True):
        data = TextTable(path, balanced_sampling=balanced, batch_size=16)
        data.setup("fit")
        drawn = torch.cat([labels for _, labels in data.train_dataloader()])
        counts[balanced] = drawn.bincount().tolist()
    assert counts[False][1] == pytest.approx(40, abs=2)
    assert counts[True][1] == pytest.approx(200, abs=40)  # half of 400, 4 standard deviations


PREDICT = {
    "a.csv": "text,id\nfirst,1\nsecond,2\n",
    "a.jsonl": '{"text": "first"}\n{"text": "second"}\n',
    "a.txt": "first\nsecond\n",
}


@pytest.mark.parametrize("name", PREDICT)
def test_predict_reads_unlabeled_texts_in_order(tmp_path: Path, name: str) -> None:
    train = write_table(tmp_path, "train.jsonl", [(f"first {n}", n % 2) for n in range(30)])
    data = TextTable(train, predict=str(write(tmp_path, name, PREDICT[name])))
    data.setup("predict")
    assert data.predict_columns == {"text": ["first", "second"]}
    ((inputs, _),) = data.predict_dataloader()
    assert data.tokenizer.decode(inputs["input_ids"][0].tolist()).startswith("first")


def test_predict_shows_the_true_labels_that_a_file_has(tmp_path: Path) -> None:
    train = write_table(tmp_path, "train.jsonl", [(f"text {n}", n % 2) for n in range(30)])
    lines = write(tmp_path, "a.csv", "text,label\nfirst,1\nsecond,\n")
    columns = TextTable(train, predict=str(lines)).predict_columns
    assert columns == {"text": ["first", "second"], "true_class": ["1", None]}


def test_single_class_is_an_error(tmp_path: Path) -> None:
    data = TextTable(write_table(tmp_path, "a.jsonl", [("a", "good")] * 30))
    with pytest.raises(UserError, match=r"All 24 training texts have .* 'good'"):
        _ = data.texts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data.train", "nowhere.csv"), "No file nowhere.csv"),
        (
            ("--data.val_fraction", "0.6", "--data.test_fraction", "0.5"),
            "leave nothing to train on",
        ),
        (("--data.val_fraction", "1.5"), "val_fraction must be between 0 and 1, got 1.5"),
        (("--data.tokenizer", "syllables"), "syllables"),
        (("--data.text_column", "body"), "no column 'body'; it has 'text', 'label'"),
    ],
)
def test_user_errors_are_one_message(refused, tmp_path: Path, arguments, message) -> None:
    rows = [(f"text {n}", str(n % 2)) for n in range(40)]
    error = refused(
        *("fit", "--config", ROOT / "configs/sst2/bag_of_words.yaml"),
        *(
            "--data",
            "datamodules.TextTable",
            "--data.train",
            write_table(tmp_path, "a.jsonl", rows),
        ),
        *arguments,
    )
    assert message in error


# The Hugging Face hub, replaced by a module of the same name.


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
        "test": Table(["three"], [-1], names),  # unlabeled, as GLUE's test splits are
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


def test_hub_splits_without_labels_are_split_off_training(hub: dict[str, Table]) -> None:
    data = HuggingFaceTexts("nyu-mll/glue", "sst2", text_column="sentence")
    assert data.class_names == ["against", "for"]
    assert data.texts["val"] == (["one", "two"], [1, 0])
    assert len(data.texts["train"].texts) == 36
    assert len(data.texts["test"].texts) == 4  # of the training texts, as the hub's has no labels


def test_hub_errors_are_one_message(hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"'glu' cannot be loaded .*: no glu\. Correct"):
        _ = HuggingFaceTexts("glu").texts
    with pytest.raises(UserError, match="no column 'text'; it has 'sentence'"):
        _ = HuggingFaceTexts("nyu-mll/glue", "sst2").texts
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="pip install datasets"):
        _ = HuggingFaceTexts("nyu-mll/glue", "sst2").texts
