"""TokenClassifier: entities of BIO tags, learned from words and found in raw texts."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datamodules import TaggedTexts
from engine.errors import UserError
from modules import TokenClassifier
from modules.inference.entities import find_entities
from modules.training.entities import EntityScores
from preprocessing.special_tokens import IGNORE_INDEX

PEOPLE = ["anna", "boris", "clara", "dmitri"]
PLACES = ["rome", "paris", "oslo", "lima"]
TAGS = ["O", "B-LOC", "B-PER", "I-PER"]


class Encoder(nn.Module):
    """Embeddings and a convolution over neighboring tokens, a token classifier."""

    def __init__(self, num_classes: int, vocab_size: int, dim: int = 32) -> None:
        super().__init__()
        self.num_classes, self.vocab_size, self.dim = num_classes, vocab_size, dim
        self.embedding = nn.Embedding(vocab_size, dim)
        self.mix = nn.Conv1d(dim, dim, 3, padding=1)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        x = self.embedding(inputs["input_ids"]) * inputs["attention_mask"].unsqueeze(-1)
        return self.head(x + self.mix(x.transpose(1, 2)).transpose(1, 2).relu())


def sentences(number: int) -> list[tuple[list[str], list[str]]]:
    """Return words and tags: "<first> <last> visits <place> ." with names of one or two words."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(number):
        name = [str(word) for word in random.choice(PEOPLE, 1 + random.integers(2), replace=False)]
        words = [*name, "visits", str(random.choice(PLACES)), "."]
        tags = ["B-PER", *["I-PER"] * (len(name) - 1), "O", "B-LOC", "O"]
        made.append((words, tags))
    return made


@pytest.fixture
def conll(tmp_path: Path) -> Path:
    blocks = ["\n".join(map(" X ".join, zip(*one, strict=True))) for one in sentences(120)]
    path = tmp_path / "train.conll"
    path.write_text("-DOCSTART- X O\n\n" + "\n\n".join(blocks) + "\n")
    return path


# Entities.


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-PER I-PER O B-LOC", ["PER 0 2", "LOC 3 4"]),
        ("B-PER B-PER", ["PER 0 1", "PER 1 2"]),
        ("I-PER I-PER O", ["PER 0 2"]),  # conlleval accepts an entity without B
        ("B-PER I-LOC I-LOC", ["PER 0 1", "LOC 1 3"]),
        ("O O", []),
        ("", []),
    ],
)
def test_entities_follow_conlleval(tags: str, expected: list[str]) -> None:
    found = [f"{kind} {start} {end}" for kind, start, end in find_entities(tags.split())]
    assert found == expected


def test_scores_count_exact_entities() -> None:
    ignored = IGNORE_INDEX
    targets = torch.tensor([[2, 3, 0, 1], [2, ignored, 0, 0]])
    predictions = torch.tensor([[2, 0, 0, 1], [2, 3, 1, 0]])  # the first person is cut
    scores = EntityScores(TAGS)
    scores.update(predictions, targets)
    values = {name: float(value) for name, value in scores.compute().items()}
    # Predicted: PER, LOC; PER, LOC. True: PER of two words, LOC; PER. Correct: LOC; PER.
    assert values == pytest.approx({"precision": 2 / 4, "recall": 2 / 3, "f1": 4 / 7})
    empty = EntityScores(TAGS)
    empty.update(torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 2, dtype=torch.long))
    assert all(value == 0 for value in empty.compute().values())


# Data.


def test_conll_and_json_lines_give_the_same_batches(conll: Path, tmp_path: Path) -> None:
    lines = (json.dumps({"tokens": w, "tags": t}) for w, t in sentences(120))
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    splits = []
    for file in (conll, tmp_path / "train.jsonl"):
        data = TaggedTexts(str(file), tokenizer="wordpiece", max_vocab_size=40)
        data.setup("fit")
        assert data.class_names == TAGS
        splits.append(data.splits["train"][torch.arange(96)])
    (inputs, targets), (others, _) = splits
    assert torch.equal(inputs["input_ids"], others["input_ids"])
    assert targets.shape == inputs["input_ids"].shape


def test_only_the_first_token_of_a_word_has_its_tag(conll: Path) -> None:
    data = TaggedTexts(str(conll), tokenizer="wordpiece", max_vocab_size=40)
    data.setup("fit")
    inputs, targets = data.splits["train"][torch.arange(2)]
    for row, (words, tags) in enumerate(zip(*data.texts["train"].select([0, 1]), strict=True)):
        pieces = [data.tokenizer.id_to_token(i) for i in inputs["input_ids"][row].tolist()]
        known = targets[row] != IGNORE_INDEX
        assert targets[row][known].tolist() == tags
        starts = [piece for piece, first in zip(pieces, known, strict=True) if first]
        assert [start[0] for start in starts] == [word[0] for word in words]
        assert all(piece.startswith(("##", "[")) for piece, k in zip(pieces, known, strict=True)
                   if not k)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("anna B-PER\nvisits\n", "line 2 has a word without a tag"),
        ("anna PERSON\n", "has the tag 'PERSON'"),
        ("\n\n", "has no texts"),
    ],
)
def test_invalid_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(text)
    with pytest.raises(UserError, match=message):
        _ = TaggedTexts(str(tmp_path / "a.conll")).texts


# From files to entities in raw texts.


@pytest.mark.slow
def test_entities_are_learned_and_found_with_their_offsets(run: Callable, conll: Path) -> None:
    folder = run(
        *("fit", "--model", "modules.TokenClassifier"),
        *("--model.net", f"{__name__}.Encoder", "--model.optimizer", "torch.optim.AdamW"),
        *("--model.optimizer.lr", 0.02, "--data", "datamodules.TaggedTexts"),
        *("--data.train", conll, "--data.tokenizer", "wordpiece", "--data.batch_size", 16),
        *("--data.max_vocab_size", 60, "--trainer.max_epochs", 12, "--trainer.accelerator", "cpu"),
        *("--checkpoint.monitor", "val/f1"),
    )
    metrics = json.loads((folder / "results.json").read_text())["metrics"]
    assert metrics["test/f1"] > 0.95
    best = folder / "checkpoints/best.ckpt"
    task = TokenClassifier.load_from_checkpoint(best, weights_only=True)
    text = "  Anna Boris visits\n\tOslo. Clara visits Rome\x00."
    entities, others = task.tag([text, "visits"])
    found = [(entity.kind, entity.text) for entity in entities]
    assert found == [("PER", "Anna Boris"), ("LOC", "Oslo"), ("PER", "Clara"), ("LOC", "Rome")]
    for entity in entities:
        assert text[entity.start : entity.end] == entity.text
        assert 0.5 < entity.score <= 1
    assert others == []
    (alone,) = task.tag(text)  # padding does not change the result
    assert [entity[:4] for entity in alone] == [entity[:4] for entity in entities]
    predicted = run("predict", "--config", folder / "config.yaml", "--ckpt_path", best)
    first = (predicted / "predictions.txt").read_text().splitlines()[0].split()
    assert set(first) <= set(TAGS)


def test_words_beyond_the_context_are_reported(conll: Path) -> None:
    data = TaggedTexts(str(conll), context=5)
    net = Encoder(4, data.vocab_size)
    task = TokenClassifier(net, 4, class_names=TAGS, tokenizer=data.tokenizer_json)
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than the context"):
        task.tag(["anna visits rome", "anna boris clara dmitri visits rome"])
    with pytest.raises(UserError, match="nothing to tag"):
        task.tag([])
