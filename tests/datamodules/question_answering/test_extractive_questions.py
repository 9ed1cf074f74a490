"""ExtractiveQuestions: windows whose targets are the tokens of the answer; nothing is shared."""

import json
from itertools import chain, pairwise
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from datamodules import ExtractiveQuestions
from datamodules.question_answering.extractive_questions import word_runs
from datamodules.question_answering.squad import article_key, read_squad
from engine.errors import UserError
from preprocessing.question_windows import encode_windows, find_span, with_windows
from tests.support import REAL_DIR
from tests.support.synthetic_data import make_squad

TRAIN, TEST = "squad/train-part-44-articles.json.gz", "xquad/xquad.en.json"
TEXT = " ".join(f"w{n}" for n in range(30))


@pytest.fixture
def tokenizer() -> Tokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *TEXT.split(), "what", "is", "it"]
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def make_data(folder: Path, tokenizer: Tokenizer, train: object = None) -> ExtractiveQuestions:
    tokenizer.save(str(folder / "tokenizer.json"))
    make_squad(folder)
    files = train or [TRAIN]
    return ExtractiveQuestions(
        files,  # type: ignore[arg-type]
        test=TEST,
        tokenizer="tokenizer.json",
        context=16,
        stride=4,
        data_dir=str(folder),
    )


def test_windows_overlap_and_contain_all_tokens(tokenizer: Tokenizer) -> None:
    cutting = with_windows(tokenizer, context=16, stride=4)
    (windows,) = encode_windows(cutting, ["what is it"], [TEXT])
    spans = [[span for span in window.offsets if span] for window in windows]
    assert all(len(window.tokens) <= 16 for window in windows)
    assert all(first[-4:] == second[:4] for first, second in pairwise(spans))
    assert [TEXT[a:b] for a, b in dict.fromkeys(chain.from_iterable(spans))] == TEXT.split()
    assert windows[0].tokens[:5] == [2, 34, 35, 36, 3]


def test_question_longer_than_the_context_is_truncated(tokenizer: Tokenizer) -> None:
    cutting = with_windows(tokenizer, context=16, stride=4)
    (windows,) = encode_windows(cutting, ["what " * 50], [TEXT])
    assert windows[0].types.count(1) > 4


def test_span_is_found_only_in_windows_that_contain_it(tokenizer: Tokenizer) -> None:
    cutting = with_windows(tokenizer, context=16, stride=4)
    (windows,) = encode_windows(cutting, ["what is it"], [TEXT])
    start = TEXT.index("w12 ")
    found = [find_span(window, start, start + len("w12 w13")) for window in windows]
    assert found.count(None) < len(found)
    for window, span in zip(windows, found, strict=True):
        assert (span is None) == (tokenizer.token_to_id("w12") not in window.tokens)
        if span is not None:
            tokens = [tokenizer.id_to_token(t) for t in window.tokens[span[0] : span[1] + 1]]
            assert tokens == ["w12", "w13"]


def test_targets_are_the_tokens_of_the_answer(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.add_tokens(["red", "green", "blue", "white", "black"])
    data = make_data(tmp_path, tokenizer)
    with pytest.warns(UserWarning, match="training paragraphs are left out"):
        data.setup("fit")
    inputs, targets = next(iter(data.val_dataloader()))
    for ids, types, (start, end) in zip(
        inputs["input_ids"], inputs["token_type_ids"], targets, strict=True
    ):
        assert start == end > 0
        assert types[start] == 1
        assert tokenizer.id_to_token(int(ids[start])) in ("red", "green", "blue", "white", "black")
    assert {q for p in data.paragraphs["train"] for q in [p.title]}.isdisjoint(
        p.title for split in ("val", "test") for p in data.paragraphs[split]
    )


def test_training_paragraphs_of_the_test_file_are_left_out(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    make_squad(tmp_path)
    content = json.loads((tmp_path / TEST).read_text())
    text = "one two three four five six seven eight nine ten eleven twelve thirteen"
    copied = content["data"][0]["paragraphs"][0] | {"context": "and " + text}
    original = copied | {"context": text + " fourteen"}
    content["data"] += [{"title": "Copy", "paragraphs": [copied]}]
    (tmp_path / "copies.json").write_text(json.dumps(content))
    data = make_data(tmp_path, tokenizer, [TRAIN, "copies.json"])
    content["data"] = [{"title": "Original", "paragraphs": [original]}, *content["data"][:2]]
    (tmp_path / TEST).write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="left out"):
        titles = {article_key(p.title) for p in data.paragraphs["train"]}
    assert titles.isdisjoint({"copy", "test 1", "café 1"})
    assert any(title.startswith("train") for title in titles)


def test_no_training_article_of_the_config_is_in_squad_dev_or_xquad() -> None:
    dev = "squad/dev-v1.1-from-explorer.json.gz"
    if not all((REAL_DIR / name).is_file() for name in (TRAIN, TEST, dev)):
        pytest.skip("needs SQuAD and XQuAD in DATA_DIR")
    train = read_squad(REAL_DIR / TRAIN)
    held_out = [p for name in (TEST, dev) for p in read_squad(REAL_DIR / name)]
    assert {article_key(p.title) for p in train}.isdisjoint(article_key(p.title) for p in held_out)
    known = set().union(*(word_runs(p.context) for p in held_out))
    assert all(known.isdisjoint(word_runs(p.context)) for p in train)


def test_invalid_stride(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="less than half of the context"):
        ExtractiveQuestions([TRAIN], context=16, stride=8)
