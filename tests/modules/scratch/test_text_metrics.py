"""BLEU and perplexity equal those of the libraries; scripts/score_text.py."""

import gzip
import json
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sacrebleu.metrics import BLEU
from torchmetrics.text import CHRFScore, Perplexity, ROUGEScore, SacreBLEUScore

from modules.scratch.bleu import SMOOTHINGS, bleu, ngrams
from modules.scratch.perplexity import perplexity
from scripts import score_text

OURS = [
    "A man in a blue shirt is standing on a ladder cleaning a window.",
    "Two young, white males are outside near many bushes.",
    "A little girl climbs into a wooden playhouse (again)!",
]
REFERENCES = [
    "A man in a blue shirt is standing on a ladder, washing the window.",
    "Two young white men stand outside, near some bushes.",
    "A girl is climbing into a wooden playhouse; she does it again.",
]
OTHERS = [
    "Someone in blue cleans a window at $4.50 an hour.",
    "Two young, white males are outside near many bushes.",
    "The little girl's going in!",
]


def both(ours: list[str], references: list[list[str]], smoothing: str) -> tuple:
    """Return our BLEU and sacreBLEU's, which takes one list per set of references."""
    mine = bleu(ours, [list(texts) for texts in zip(*references, strict=True)], smoothing)
    library = BLEU(smooth_method=smoothing, effective_order=False).corpus_score(ours, references)
    return mine, library


def assert_equal(ours: list[str], references: list[list[str]], smoothing: str) -> float:
    mine, library = both(ours, references, smoothing)
    assert mine.score == pytest.approx(library.score, abs=1e-9)
    assert mine.precisions == pytest.approx(library.precisions, abs=1e-9)
    assert mine.brevity_penalty == pytest.approx(library.bp, abs=1e-12)
    assert (mine.length, mine.reference_length) == (library.sys_len, library.ref_len)
    return mine.score


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_bleu_of_sentences_equals_sacrebleu(smoothing: str) -> None:
    assert 20 < assert_equal(OURS, [REFERENCES], smoothing) < 60
    assert assert_equal(OURS, [REFERENCES, OTHERS], smoothing) > 60
    assert assert_equal(OURS, [OURS], smoothing) == pytest.approx(100)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_bleu_of_random_texts_equals_sacrebleu(smoothing: str) -> None:
    draw = random.Random(0)
    words = [*"aaabb", "1,000", "don't", "e-mail.", "&amp;漢字"]

    def text() -> str:
        return " ".join(draw.choices(words, k=draw.randint(0, 9)))

    scores = []
    for _ in range(40):
        number = draw.randint(1, 4)
        sets = [[text() for _ in range(number)] for _ in range(1 + draw.randint(1, 3))]
        if not any(line.strip() for line in sets[0]):
            continue
        scores.append(assert_equal(sets[0], sets[1:], smoothing))
    assert len(scores) > 30
    assert len(set(scores)) > 5


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize(
    "ours",
    [
        [""],  # empty translation
        ["x y z"],  # no match
        ["the cat"],  # no trigrams
        ["the cat ran on the mat"],  # no matching 4-gram
        ["mat the on sat cat the"],  # unigram matches only
        ["the the the the the the the"],  # Papineni et al.: two matches at most
    ],
)
def test_bleu_of_edge_cases_equals_sacrebleu(ours: list[str], smoothing: str) -> None:
    assert_equal(ours, [["the cat sat on the mat"]], smoothing)


def test_smoothing_matters_without_a_matching_4_gram() -> None:
    ours, references = ["the cat sat at the mat"], [["the cat sat on the mat"]]
    scores = {name: both(ours, references, name)[0].score for name in SMOOTHINGS}
    assert scores["none"] == 0
    assert 0 < scores["floor"] < scores["exp"] < scores["add-k"]


def test_ngram_matches_are_clipped_to_the_reference_count() -> None:
    found = bleu(["the the the the"], [["the cat is on the mat"]], "none", str.split)
    assert found.precisions[0] == 50
    assert ngrams(["a", "b", "a", "b"], 2) == {("a", "b"): 2, ("b", "a"): 1}


@pytest.mark.parametrize(
    ("ours", "references", "smoothing", "message"),
    [
        (["a"], [["a"], ["b"]], "exp", "1 translations and references for 2"),
        ([], [], "exp", "one or more sentences"),
        (["a"], ["a"], "exp", "sentence 1 must have a list of references"),
        (["a"], [["a"]], "linear", "smoothing must be one of none, floor, add-k, exp"),
    ],
)
def test_invalid_bleu_inputs_are_reported(ours, references, smoothing: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bleu(ours, references, smoothing)


def test_perplexity_equals_torchmetrics() -> None:
    torch.manual_seed(0)
    logits, targets = 5 * torch.randn(3, 40, 17), torch.randint(17, (3, 40))
    targets[1, 30:] = -100
    library = Perplexity(ignore_index=-100)
    library.update(logits, targets)
    mine = perplexity(logits.flatten(0, 1).numpy(), targets.flatten().numpy())
    assert mine == pytest.approx(library.compute().item(), rel=1e-5)
    nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert mine == pytest.approx(math.exp(nats), rel=1e-5)


def test_perplexity_of_uniform_and_of_certain_predictions() -> None:
    targets = np.arange(7)
    assert perplexity(np.zeros((7, 50)), targets) == pytest.approx(50)
    certain = np.full((7, 50), -900.0)  # e^900 overflows
    certain[np.arange(7), targets] = 900
    assert perplexity(certain, targets) == pytest.approx(1)
    with pytest.raises(ValueError, match="at least one target"):
        perplexity(np.zeros((2, 5)), np.array([-100, -100]))


# scripts/score_text.py.


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.slow
def test_files_are_scored_as_torchmetrics_would(tmp_path: Path, capsys) -> None:
    ours, references = (
        write(tmp_path / "ours.txt", OURS),
        write(tmp_path / "references.txt", REFERENCES),
    )
    packed = tmp_path / "others.txt.gz"
    packed.write_bytes(gzip.compress("\r\n".join(OTHERS).encode()))
    found = score_text.main(
        [
            *("--hypotheses", str(ours), "--references", str(references)),
            *("--references", str(packed), "--json", str(tmp_path / "scores.json")),
        ]
    )
    sets = [list(pair) for pair in zip(REFERENCES, OTHERS, strict=True)]
    scores = {"BLEU": SacreBLEUScore(), "chrF": CHRFScore(n_word_order=0)}
    expected = {name: metric(OURS, sets).item() for name, metric in scores.items()}
    keys = tuple(score_text.ROUGE)
    rouge = ROUGEScore(rouge_keys=keys, use_stemmer=True, accumulate="best")(OURS, sets)
    for key, name in score_text.ROUGE.items():
        expected[name] = rouge[f"{key}_fmeasure"].item()
    for name, share in expected.items():  # torchmetrics counts in float32
        assert found[name]["score"] == pytest.approx(100 * share, rel=1e-4), name
    output = capsys.readouterr().out
    assert "nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:" in output
    assert f"{found['BLEU']['score']:.2f}" in output
    assert json.loads((tmp_path / "scores.json").read_text()) == found


def test_the_formula_gives_what_the_program_prints(tmp_path: Path) -> None:
    ours, references = (
        write(tmp_path / "ours.txt", OURS),
        write(tmp_path / "references.txt", REFERENCES),
    )
    found = score_text.main(["--hypotheses", str(ours), "--references", str(references)])
    mine = bleu(OURS, [[line] for line in REFERENCES])
    assert found["BLEU"]["score"] == pytest.approx(mine.score)
    lower = score_text.main(
        ["--hypotheses", str(ours), "--references", str(references), "--lowercase"]
    )
    assert "case:lc" in lower["BLEU"]["signature"]


def test_empty_lines_are_kept_and_counted(tmp_path: Path, capsys) -> None:
    ours = write(tmp_path / "ours.txt", [OURS[0], "", OURS[2]])
    references = write(tmp_path / "references.txt", REFERENCES)
    found = score_text.main(["--hypotheses", str(ours), "--references", str(references)])
    assert "1 of 3 hypotheses are empty" in capsys.readouterr().err
    assert found["BLEU"]["score"] > 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\ntwo\n", "has 3 lines and .* has 2: both must"),
        (b"one\ntw\xf6\nthree\n", "not UTF-8: line 2 contains the byte 0xf6"),
        (b"\n\n\n", "is empty"),
        (None, "cannot read"),
    ],
)
def test_unusable_reference_files_are_user_errors(
    tmp_path: Path, capsys, content: bytes | None, message: str
) -> None:
    ours, references = write(tmp_path / "ours.txt", OURS), tmp_path / "references.txt"
    if content is not None:
        references.write_bytes(content)
    with pytest.raises(SystemExit) as exit:
        score_text.main(["--hypotheses", str(ours), "--references", str(references)])
    assert exit.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("score_text: error: ")
    assert re.search(message, text)
