"""GLUE: acceptability, paraphrase, entailment and similarity of sentences."""

import csv
import io
from pathlib import Path
from typing import Any, Literal, NamedTuple

from datamodules.classification.base import LabeledTexts, TextClassificationDataModule
from datamodules.loading.files import obtain, verify
from datamodules.loading.tables import Target
from datamodules.text.reading import read_utf8

URL = (
    "https://raw.githubusercontent.com/F0restL1n/BERT/0d0288be08079531c7b3a85af3d532f9adb0f13a/"
    "glue_data/"
)


class Task(NamedTuple):
    """The files of a task; columns are numbered from 0."""

    folder: str
    columns: tuple[int, ...]  # of the label, then of one or two texts
    classes: tuple[str, ...]  # in the order of their indices; one for a number
    labels: tuple[str, ...] = ()  # the classes as the files name them
    header: bool = True


ENTAILMENT = ("entailment", "not_entailment")
TASKS = {
    "cola": Task("CoLA", (1, 3), ("unacceptable", "acceptable"), ("0", "1"), header=False),
    "mrpc": Task("MRPC", (0, 3, 4), ("different", "equivalent"), ("0", "1")),
    "rte": Task("RTE", (3, 1, 2), ENTAILMENT, ENTAILMENT),
    "stsb": Task("STS-B", (9, 7, 8), ("similarity",)),
}
STSB_TEST = Task("STS-B", (4, 5, 6), ("similarity",), header=False)
SHA256 = {  # a compressed file is used if it exists
    "CoLA/train.tsv": "cb368ebeb9f27d7ad03720d27ddc95687a311bdb100781a2fe59a5f5b1bc0624",
    "CoLA/train.tsv.gz": "510ef138f19b4e63eafd49f44c1cf8261d951c0d74d64a724470c4aeaf40b878",
    "CoLA/dev.tsv": "8c013e21dc39957cac37378d87bebe225b694a0d5fe13eded66c2856628833fd",
    "CoLA/dev.tsv.gz": "8de36868a25ea63c2db98910a29e51e0fd54cd77e9a9e07da24b2631601d9173",
    "MRPC/train.tsv": "15d9c71e62d662b1cc9237e2015047cad4c1f62552d49858a9bce2b944d79897",
    "MRPC/train.tsv.gz": "918b6391edae8fa014d65dd726aac764fa57221ccafbd51e1641684e4a5cd6a8",
    "MRPC/dev.tsv": "9e8f284788040f7c9ecde2e1b3c07237c756f926bd9ef8548ef5d34b56f69f17",
    "MRPC/dev.tsv.gz": "efa867fdb213af9dfdd9efefa0bb18c0a44ab9576727b71ff65fbfa744adb3ab",
    "RTE/train.tsv": "41e3a9b063433392343fad9e962cf2f58b681c78d8f71592f4186f0837246c5c",
    "RTE/train.tsv.gz": "78f1857b17217f72cde600eae9770a1999f8e167616d9cc6eb1e66a31e8c40cd",
    "RTE/dev.tsv": "80230dfa1347282e7b532b06a1004a76a710087541189bf874223ddf0e3819fb",
    "RTE/dev.tsv.gz": "b1749234aaf7a4d9af9ea93bd2dd821f5a2500eb333d6fad375c4b6335bbb8a6",
    "STS-B/train.tsv": "41c4d978b6162abdcada7e49a982211954cca5459c228db478af333124b257a2",
    "STS-B/train.tsv.gz": "fac732b897ea4b8c8f0496d872a0d22459118f5ded10fb33fa9d12bfaa2f68d5",
    "STS-B/dev.tsv": "fe7dc0632a5033562f3cadff991f6e8d9b9b6311861660e78c3c82eb7db67f59",
    "STS-B/dev.tsv.gz": "8c65532cb19bb6cec59aac164d11b3cd8a20f790c38a281e05a0af74f10b15df",
    "STS-B/sts-test.tsv": "affe45928a66ee5a708531233c95b7dacbbdc57f974f002a3d32ea0180cf816a",
    "STS-B/sts-test.tsv.gz": "5e0b7f0a23ebc5189bf84486e5b24bc6e75cb652ac1bd2bc39ce02e6856b6df2",
}
# The file at URL lacks a row; this one was split from Microsoft's file by GLUE's list of dev pairs.
NOT_AT_URL = "MRPC/train.tsv"
STSB_TEST_URL = URL + "STS-B/original/sts-test.tsv"


class GLUE(TextClassificationDataModule):
    """Four tasks of the General Language Understanding Evaluation (Wang et al. 2019).

    - `cola`: is a sentence grammatical? 8,551 to train on, 1,043 in val. Matthews correlation.
    - `mrpc`: do two sentences mean the same? 3,668 pairs and 408. Accuracy, and F1 of `equivalent`.
    - `rte`: does the first text entail the second? 2,490 pairs and 277. Accuracy.
    - `stsb`: how similar are two sentences, from 0 to 5? 5,749 pairs and 1,500; for
      modules.Regressor. Pearson's and Spearman's correlation.

    Val is GLUE's dev split. The labels of GLUE's test splits are not public: test is the dev split,
    too, except for `stsb`, whose original test split of 1,379 pairs is labeled.

    Also takes the arguments of TextClassificationDataModule.

    Args:
        task: `cola`, `mrpc`, `rte` or `stsb`.
    """

    def __init__(self, task: Literal["cola", "mrpc", "rte", "stsb"], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.task = TASKS[task]
        self.class_names = list(self.task.classes)
        self.target: Target = "class" if self.task.labels else "number"
        self.files = {
            "train": (self.task, "train"),
            "val": (self.task, "dev"),
            "test": (STSB_TEST, "sts-test") if task == "stsb" else (self.task, "dev"),
        }
        if len(self.task.columns) == 3:
            self.text_column, self.second_text_column = "sentence1", "sentence2"

    def prepare_data(self) -> None:
        for task, split in self.files.values():
            self._find(f"{task.folder}/{split}.tsv")

    def _find(self, name: str) -> Path:
        path = self.data_dir / "glue" / name
        compressed = path.with_name(path.name + ".gz")
        if compressed.exists():
            verify(compressed, f"sha256:{SHA256[name + '.gz']}", "Delete it.")
            return compressed
        url = STSB_TEST_URL if path.stem == "sts-test" else URL + name
        return obtain(path, [] if name == NOT_AT_URL else [url], f"sha256:{SHA256[name]}")

    def load(self) -> dict[str, LabeledTexts]:
        return {
            split: _read(self._find(f"{task.folder}/{name}.tsv"), task)
            for split, (task, name) in self.files.items()
        }


def _read(path: Path, task: Task) -> LabeledTexts:
    """Read tab-separated rows without quoting; the checksum guarantees their format."""
    table = csv.reader(io.StringIO(read_utf8(path)), delimiter="\t", quoting=csv.QUOTE_NONE)
    texts: list[Any] = []
    labels: list[Any] = []
    for row in list(table)[task.header :]:
        label, *sentences = (row[column] for column in task.columns)
        texts.append(tuple(sentences) if len(sentences) == 2 else sentences[0])
        labels.append(task.labels.index(label) if task.labels else float(label))
    return LabeledTexts(texts, labels)
