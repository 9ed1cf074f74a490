"""SpanReader: best spans by joint score, answers from raw texts, training from files."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn

from engine.errors import UserError
from modules import SpanReader
from modules.span_reader import best_spans
from preprocessing.question_windows import with_windows
from tests.support.configs import TINY_TAGGER
from tests.support.synthetic_data import make_squad

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
TEXT = "the dog is red what color blue cat . filler ? ball car hat cup green white black how"
WORDS = [*SPECIAL, *TEXT.split()]


def make_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, "[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


class ColorNet(nn.Module):
    """Logits that are high at the tokens `red` and `blue`, and 5 at [CLS]."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        ids = inputs["input_ids"]
        score = 6.0 * (ids == WORDS.index("red")) + 9.0 * (ids == WORDS.index("blue"))
        score = score + 5.0 * (ids == WORDS.index("[CLS]"))
        return torch.stack([score, score], dim=-1) * self.scale


@pytest.fixture
def reader() -> SpanReader:
    return SpanReader(ColorNet(), tokenizer=with_windows(make_tokenizer(), 16, 4).to_str())


def test_best_span_has_the_largest_joint_score() -> None:
    logits = torch.randn(3, 9, 2)
    for with_first in (False, True):
        starts, ends, scores = best_spans(logits, 3, with_first)
        for row in range(3):
            allowed = [(s, e) for s in range(1, 9) for e in range(s, min(s + 3, 9))]
            allowed += [(0, 0)] if with_first else []
            joint = {(s, e): float(logits[row, s, 0] + logits[row, e, 1]) for s, e in allowed}
            best = max(joint, key=joint.__getitem__)
            assert (int(starts[row]), int(ends[row])) == best
            assert float(scores[row]) == pytest.approx(joint[best])


def test_answer_has_the_characters_of_the_text(reader: SpanReader) -> None:
    text = "The  dog is RED."
    found = reader.answer("What color is the dog?", text)
    assert (found.text, found.start, found.end) == ("RED", 12, 15)
    assert found.score == pytest.approx(2 * 6 - 2 * 5)
    assert reader.answer("Blue?", "The cat is.").score < 0  # not a word of the question


def test_answer_of_a_long_text_is_that_of_the_best_window(reader: SpanReader) -> None:
    text = "red " + "filler " * 40 + "blue " + "filler " * 40
    found = reader.answer(["What color?", "What color?"], [text, "the red dog"], batch_size=3)
    assert [one.text for one in found] == ["blue", "red"]
    assert text[found[0].start : found[0].end] == "blue"


def test_text_without_tokens_has_no_answer(reader: SpanReader) -> None:
    assert reader.answer("What color?", "") == ("", 0, 0, float("-inf"))


def test_nothing_to_read_is_an_error(reader: SpanReader) -> None:
    with pytest.raises(UserError, match="2 questions for 1 texts"):
        reader.answer(["a", "b"], ["c"])
    with pytest.raises(UserError, match="without `tokenizer`"):
        SpanReader(ColorNet()).answer("a", "b")


@pytest.mark.slow
def test_checkpoint_of_a_run_answers(run: Callable[..., Path], tmp_path: Path) -> None:
    make_squad(tmp_path)
    make_tokenizer().save(str(tmp_path / "tokenizer.json"))
    folder = run(
        *("fit", "--model", "modules.SpanReader", "--model.net", TINY_TAGGER),
        *("--model.optimizer", "torch.optim.AdamW", "--model.optimizer.lr", 0.01),
        *("--data", "datamodules.ExtractiveQuestions", "--data.data_dir", tmp_path),
        *("--data.train", '["squad/train-part-44-articles.json.gz"]'),
        *("--data.test", "xquad/xquad.en.json", "--data.tokenizer", "tokenizer.json"),
        *("--data.context", 24, "--data.stride", 4, "--trainer.max_epochs", 30),
        *("--trainer.accelerator", "cpu", "--trainer.check_val_every_n_epoch", 30),
    )
    path = folder / "checkpoints/last.ckpt"
    task = SpanReader.load_from_checkpoint(path, weights_only=True)
    text = "The dog of Test_1 is red."
    found = task.answer("What color is the dog?", text)
    assert text[found.start : found.end] == found.text == "red"
