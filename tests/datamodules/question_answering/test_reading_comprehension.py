"""ReadingComprehension: conversations about paragraphs, and no article in two splits."""

import json
from pathlib import Path

import pytest

from datamodules import ReadingComprehension
from datamodules.question_answering.squad import article_key, read_squad
from engine.errors import UserError
from tests.support import REAL_DIR
from tests.support.synthetic_data import make_squad

TRAIN, TEST = "squad/train-part-44-articles.json.gz", "xquad/xquad.en.json"


def make_data(folder: Path, **options) -> ReadingComprehension:
    make_squad(folder)
    return ReadingComprehension(TRAIN, test=TEST, data_dir=str(folder), **options)


def test_conversation_asks_all_questions_about_a_paragraph(tmp_path: Path) -> None:
    first, *_ = make_data(tmp_path).conversations["test"]
    assert [message["role"] for message in first] == ["user", "assistant"] * 2
    assert first[0]["content"].startswith("The dog of Test_1 is red.\n\nAnswer ")
    assert first[0]["content"].endswith("\nWhat color is the dog?")
    assert [message["content"] for message in first[1:]] == ["red", "How is the dog?", "red"]


def test_number_of_questions_of_a_conversation_is_limited(tmp_path: Path) -> None:
    conversations = make_data(tmp_path, questions_per_sample=1).conversations["test"]
    assert len(conversations) == 8
    assert all(len(messages) == 2 for messages in conversations)
    assert all("is red.\n\n" in m[0]["content"] for m in conversations[:4])


def test_articles_of_the_test_file_are_left_out_of_training(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    with pytest.warns(UserWarning, match="1 of 9 articles of squad/train-part"):
        conversations = data.conversations
    texts = {split: str(found) for split, found in conversations.items()}
    assert "Caf" in texts["test"]
    assert "Caf" not in texts["train"]


def test_an_article_is_in_one_split_only(tmp_path: Path) -> None:
    data = make_data(tmp_path, val_fraction=0.4)
    titles = {
        split: {messages[0]["content"].split(" is ")[0] for messages in conversations}
        for split, conversations in data.conversations.items()
    }
    assert len(titles["val"]) == 4
    assert not titles["train"] & titles["val"]


@pytest.mark.skipif(not (REAL_DIR / TRAIN).exists(), reason="needs SQuAD in DATA_DIR")
def test_no_article_of_xquad_is_in_the_training_part_of_squad() -> None:
    train, test = (
        {article_key(paragraph.title) for paragraph in read_squad(REAL_DIR / name)}
        for name in (TRAIN, TEST)
    )
    assert len(train) == 44
    assert len(test) == 48
    assert not train & test


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "does not have the form of SQuAD"),
        ('{"data": [{"title": "a", "paragraphs": [{"context": "b"}]}]}', "KeyError 'qas'"),
        ('{"data": []}', "no answered questions"),
    ],
)
def test_file_of_another_form_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_squad(tmp_path / "data.json")


def test_training_on_the_test_file_is_an_error(tmp_path: Path) -> None:
    make_squad(tmp_path)
    data = ReadingComprehension(TEST, val=TEST, test=TEST, data_dir=str(tmp_path))
    with (
        pytest.warns(UserWarning, match="2 of 2 articles"),
        pytest.raises(UserError, match="no articles that the validation and test data do not have"),
    ):
        _ = data.conversations


def test_questions_without_answers_are_left_out(tmp_path: Path) -> None:
    questions = [{"id": "1", "question": "Why?", "answers": []}]
    questions.append({"id": "2", "question": " Who? ", "answers": [{"text": "we "}]})
    paragraph = {"context": "We are.", "qas": questions}
    content = {"data": [{"title": "a", "paragraphs": [paragraph]}]}
    (tmp_path / "data.json").write_text(json.dumps(content))
    (found,) = read_squad(tmp_path / "data.json")
    assert found.questions == [("2", "Who?", ["we"], (None,))]
