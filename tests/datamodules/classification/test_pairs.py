"""Pairs of texts: encoding, truncation, batches, predictions; and the tasks of GLUE."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from datamodules import GLUE, TextTable
from engine.errors import UserError
from modules import Classifier
from preprocessing.texts import texts_to_inputs
from tests.support import REAL_DIR

PAIRS = [("a fine film", "good"), ("dull", "a long and dull film"), ("a b c d e f", "g h i j k l")]
SIZES = {"cola": (8_551, 1_043, 1_043), "mrpc": (3_668, 408, 408), "rte": (2_490, 277, 277)}
SIZES["stsb"] = (5_749, 1_500, 1_379)


def pair_table(folder: Path, **arguments) -> TextTable:
    rows = "".join(f"{a}\t{b}\t{n % 2}\n" for n, (a, b) in enumerate(PAIRS))
    file = folder / "pairs.tsv"
    file.write_text(f"premise\thypothesis\tlabel\n{rows}")
    options = {"text_column": "premise", "second_text_column": "hypothesis", "context": 10}
    options |= {"val": str(file), "test": str(file), "tokenizer": "wordpiece", "batch_size": 3}
    return TextTable(str(file), **(options | arguments))


def test_pairs_are_joined_by_the_post_processor_with_token_types(tmp_path: Path) -> None:
    data = pair_table(tmp_path)
    with pytest.warns(UserWarning, match="longer than the context of 10 tokens: 1 of 3 train"):
        data.setup("fit")
    inputs, labels = data.splits["train"][torch.arange(3)]
    tokenizer = data.tokenizer
    words = [tokenizer.id_to_token(token) for token in inputs["input_ids"][0].tolist()]
    assert words[:7] == ["[CLS]", "a", "fine", "film", "[SEP]", "good", "[SEP]"]
    assert inputs["token_type_ids"][0].tolist() == [0] * 5 + [1] * 2 + [0] * 3
    # The longer text is shortened first, so that both keep about the same number of tokens.
    words = [tokenizer.id_to_token(token) for token in inputs["input_ids"][2].tolist()]
    assert [words[i] for i in (0, 4, 9)] == ["[CLS]", "[SEP]", "[SEP]"]
    assert len(words) == 10
    assert labels.tolist() == [0, 1, 0]


def test_batches_equal_the_inputs_of_the_checkpoint_tokenizer(tmp_path: Path) -> None:
    data = pair_table(tmp_path)
    data.setup("fit")
    batch, _ = data.splits["train"][torch.arange(3)]
    inputs = texts_to_inputs(PAIRS, Tokenizer.from_str(data.tokenizer_json))
    assert inputs.keys() == batch.keys() == {"input_ids", "attention_mask", "token_type_ids"}
    for name in inputs:
        assert torch.equal(inputs[name], batch[name]), name


def test_missing_second_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no column 'b'; .* --data.second_text_column"):
        _ = pair_table(tmp_path, second_text_column="b").texts


@pytest.mark.slow
def test_pairs_train_classify_and_predict(run: Callable[..., Path], small_texts: Path) -> None:
    fitted = run(
        *("fit", "--model", "modules.Classifier", "--model.net", "modules.nets.BertClassifier"),
        *("--model.net.num_layers", 1, "--model.net.num_heads", 1, "--model.net.dim", 16),
        *("--data", "datamodules.GLUE", "--data.task", "mrpc", "--data.tokenizer", "wordpiece"),
        *("--data.data_dir", small_texts, "--data.context", 32, "--data.batch_size", 8),
        *("--trainer.max_epochs", 1, "--trainer.accelerator", "cpu"),
    )
    best = fitted / "checkpoints/best.ckpt"
    task = Classifier.load_from_checkpoint(best, weights_only=True)
    (one,), both = task.classify([PAIRS[0]]), task.classify(PAIRS[:2])
    assert both[0] == (one[0], pytest.approx(one[1], abs=1e-5))
    (swapped,) = task.classify([PAIRS[0][::-1]])
    assert swapped[1] != pytest.approx(one[1], abs=1e-5)  # the order of the texts counts
    with pytest.raises(UserError, match=r"takes texts \(str\), got tuple"):
        task.classify([("a", "b", "c")])
    (fitted / "new.tsv").write_text("sentence1\tsentence2\na film\tthe film\n")
    folder = run(
        *("predict", "--config", fitted / "config.yaml"),
        *("--ckpt_path", best, "--data.predict", fitted / "new.tsv"),
    )
    (row,) = csv.DictReader((folder / "predictions.csv").open(encoding="utf-8", newline=""))
    assert (row["text"], row["second_text"]) == ("a film", "the film")
    assert row["prediction"] == task.classify([("a film", "the film")])[0][0]


@pytest.mark.parametrize("task", SIZES)
def test_glue_reads_texts_and_labels(task: str, small_texts: Path) -> None:
    data = GLUE(task, data_dir=str(small_texts), batch_size=8)
    data.prepare_data()
    data.setup("fit")
    inputs, targets = next(iter(data.train_dataloader()))
    assert ("token_type_ids" in inputs) == (task != "cola")
    assert targets.is_floating_point() == (task == "stsb")
    assert {len(texts.labels) for texts in data.texts.values()} == {20, 80}
    assert (data.texts["test"].texts == data.texts["val"].texts) == (task != "stsb")


@pytest.mark.skipif(not (REAL_DIR / "glue").exists(), reason="DATA_DIR holds no glue")
@pytest.mark.parametrize("task", SIZES)
def test_the_real_glue(task: str) -> None:
    data = GLUE(task, data_dir=str(REAL_DIR))
    data.prepare_data()
    assert tuple(len(texts.labels) for texts in data.texts.values()) == SIZES[task]
    positive = {"cola": 721, "mrpc": 279, "rte": 131}.get(task)
    labels = data.texts["val"].labels
    assert sum(labels) == positive if positive else (min(labels), max(labels)) == (0, 5)


def test_missing_glue_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"CoLA/train.tsv does not exist .*https://"):
        GLUE("cola", data_dir=str(tmp_path)).prepare_data()
