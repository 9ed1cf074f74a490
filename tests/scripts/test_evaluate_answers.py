"""scripts.evaluate_answers: SQuAD's scores, and greedy answers of models and adapters."""

import json
from pathlib import Path

import pytest

from datamodules.question_answering.squad import Paragraph, Question, read_squad
from engine.errors import UserError
from modules.inference.pretrained import open_language_model
from modules.training.answers import exact_match, normalize_answer, token_f1
from scripts import evaluate_answers
from tests.support import ROOT
from tests.support.configs import ONE_STEP
from tests.support.huggingface import make_chat_folder
from tests.support.synthetic_data import make_squad

FILE = "xquad/xquad.en.json"


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    return make_squad(tmp_path / "data")


# Expected values by hand from SQuAD's evaluate-v1.1.py.
@pytest.mark.parametrize(
    ("prediction", "answers", "f1", "exact"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1.0, 1.0),
        ("in the year 1066", ["1066"], 0.5, 0.0),  # precision 1/3, recall 1
        ("1066", ["in 1066", "A.D. 1066", "1066."], 1.0, 1.0),
        ("the the a", ["an apple"], 0.0, 0.0),
        ("to be to be", ["to be or not to be"], 0.8, 0.0),  # a word counts as often as in both
        ("U.S.A.", ["USA"], 1.0, 1.0),
        ("theatre and anthem", ["Theatre, anthem"], 0.8, 0.0),  # articles are whole words
        ("", ["x"], 0.0, 0.0),
        ("$5–10", ["510"], 0.0, 0.0),  # only ASCII punctuation is removed
        ("half-time", ["halftime"], 1.0, 1.0),
    ],
)
def test_scores_are_those_of_squad(prediction, answers, f1, exact):
    assert token_f1(prediction, answers) == pytest.approx(f1)
    assert exact_match(prediction, answers) == exact


def test_normalized_answer_has_no_articles_and_extra_spaces():
    assert normalize_answer(" A  dog,\nthe Cat ") == "dog cat"


def test_answers_do_not_depend_on_the_batch(tmp_path: Path, data_dir: Path) -> None:
    folder = make_chat_folder(tmp_path / "model")
    model = open_language_model(folder)
    asked = evaluate_answers.questions_of(read_squad(data_dir / FILE))
    asked.append((Paragraph("", "Short.", []), Question("", "Why?", [])))
    conversations = [evaluate_answers.messages(one, [], few_shot=0) for one in asked]
    batched = evaluate_answers.answer(model, conversations, max_new_tokens=8, batch_size=4)
    assert batched == [model.chat(c, max_new_tokens=8, top_k=1) for c in conversations]
    assert len(set(batched)) > 1


@pytest.mark.slow
def test_adapter_checkpoint_is_evaluated(tmp_path: Path, data_dir: Path, run, capsys) -> None:
    base = make_chat_folder(tmp_path / "model", max_position_embeddings=512)
    folder = run(
        *("fit", "--config", ROOT / "configs/instruct/smollm2_squad.yaml", *ONE_STEP),
        *("--model.net.pretrained", base, "--data.tokenizer", base, "--model.optimizer.lr", 0.5),
        *("--data.batch_size", 1, "--data.data_dir", data_dir, "--test_after_fit", "false"),
    )
    checkpoint, output = folder / "checkpoints/last.ckpt", tmp_path / "answers.json"
    arguments = ["--data", FILE, "--max_new_tokens", "6", "--few_shot", "1"]
    before = evaluate_answers.main(["--checkpoint", str(base), *arguments])
    capsys.readouterr()
    after = evaluate_answers.main(
        ["--checkpoint", str(checkpoint), *arguments, "--limit", "3", "--json", str(output)]
    )
    assert capsys.readouterr().out.startswith("F1 0.000, exact match 0.000 over 3 questions")
    assert json.loads(output.read_text()) == after
    assert after["answers"].keys() < before["answers"].keys()
    assert any(text != before["answers"][name] for name, text in after["answers"].items())
    asked = evaluate_answers.questions_of(read_squad(data_dir / FILE), 3)
    conversation = evaluate_answers.messages(asked[0], read_squad(data_dir / FILE), 1)
    model = open_language_model(checkpoint)
    expected = model.chat(conversation, max_new_tokens=6, top_k=1)
    assert after["answers"][asked[0][1].id] == expected


def test_examples_are_of_other_articles(data_dir: Path) -> None:
    paragraphs = read_squad(data_dir / FILE)
    asked = (paragraphs[0], paragraphs[0].questions[0])
    example, answer, question = evaluate_answers.messages(asked, paragraphs, few_shot=1)
    assert example["content"].startswith("The ball of Café_1 is green.")
    assert answer == {"role": "assistant", "content": "green"}
    assert question["content"].startswith("The dog of Test_1 is red.")
    with pytest.raises(UserError, match="1 articles besides 'Test_1' have examples, 2 are needed"):
        evaluate_answers.messages(asked, paragraphs, few_shot=2)


def test_score_is_the_mean_over_questions() -> None:
    paragraph = Paragraph("", "", [])
    asked = [(paragraph, Question(str(n), "", ["red car"])) for n in range(4)]
    scores = evaluate_answers.score(asked, ["Red car.", "car", "blue", ""])
    assert scores == {"f1": pytest.approx((1 + 2 / 3) / 4), "exact_match": 0.25, "questions": 4}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--limit", "0"), "--limit must be at least 1, got 0"),
        (("--data", "missing.json"), "No file missing.json"),
        (("--max_new_tokens", "250"), "more than the context of 256: shorten the"),
    ],
)
def test_wrong_arguments_are_user_errors(tmp_path, data_dir, capsys, arguments, message):
    folder = make_chat_folder(tmp_path / "model")
    with pytest.raises(SystemExit, match="2"):
        evaluate_answers.main(["--checkpoint", str(folder), "--data", FILE, *arguments])
    assert message in capsys.readouterr().err
