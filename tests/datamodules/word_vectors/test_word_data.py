"""Word vector data: neighbors, negatives, co-occurrence counts, benchmarks, user errors."""

import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules import ContextWindows, Cooccurrences
from datamodules.loading.ragged import RaggedTokens
from datamodules.word_vectors import word_benchmarks
from datamodules.word_vectors.context_windows import (
    ROW,
    Windows,
    keep_probability,
    negative_probability,
)
from datamodules.word_vectors.cooccurrences import HeldOutPairs, Pairs, count_pairs
from datamodules.word_vectors.running_text import split_texts
from engine.errors import UserError

LENGTHS = [40, 1, 7, 150, 2]


def numbered(lengths: list[int]) -> RaggedTokens:
    """Return texts of the consecutive words 2, 3, 4, …, so that a word equals its position."""
    return RaggedTokens.from_sequences(
        [a + 2 for a in np.split(np.arange(sum(lengths)), np.cumsum(lengths))]
    )


def windows(lengths: list[int] = LENGTHS, **options) -> Windows:
    texts = numbered(lengths)
    counts = torch.ones(sum(lengths) + 2, dtype=torch.int64)
    counts[:2] = 0  # [PAD] and [UNK]
    return Windows(texts, counts, **{"window": 4, "subsample": 0, "batch_size": 200} | options)


def pairs_of(batch: tuple[dict[str, Tensor], Tensor]) -> list[tuple[int, int]]:
    """Return the pairs of words in the targets of skip-gram."""
    inputs, targets = batch
    rows, places, others = (targets > 0).nonzero(as_tuple=True)
    words = inputs["input_ids"][rows, places], inputs["candidates"][rows, others]
    return list(zip(*(w.tolist() for w in words), strict=True))


def test_pairs_are_unique_and_within_a_window_of_one_text() -> None:
    found = pairs_of(windows()[0])
    text = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    assert len(found) == len(set(found)) > 600
    for a, b in found:
        assert 1 <= abs(a - b) <= 4
        assert text[a - 2] == text[b - 2]
    assert {a for a, _ in found} == {n + 2 for n in range(200)} - {42}  # the only word of its text


def test_near_neighbors_are_sampled_more_often() -> None:
    """A window uniform in 1 … W includes distance d with probability (W - d + 1) / W (word2vec)."""
    data = windows([200], batch_size=200)
    distances = Counter(b - a for n in range(60) for a, b in pairs_of(data[n]) if 10 < a < 190)
    assert set(distances) == {-4, -3, -2, -1, 1, 2, 3, 4}
    for distance, number in distances.items():
        expected = 60 * 179 * (5 - abs(distance)) / 4
        assert abs(number - expected) < 4 * (60 * 179 / 4) ** 0.5, distance  # standard deviations


def test_epoch_has_every_word_once_in_its_own_order() -> None:
    data = windows(batch_size=50)
    assert len(data) == 4
    epochs = []
    for epoch in range(2):
        words, texts = data._epoch(epoch)
        assert sorted(words.tolist()) == list(range(2, 202))
        assert torch.equal(texts, texts[words.argsort()][words - 2])
        epochs.append(words)
    assert not torch.equal(*epochs)


def test_every_held_out_word_is_evaluated() -> None:
    data = windows(batch_size=150, keep_last=True)
    assert len(data) == 2
    seen = [row[row > 0] for row in (data[step][0]["input_ids"] for step in range(2))]
    assert sorted(torch.cat(seen).tolist()) == list(range(2, 202))


def test_batch_depends_on_seed_and_step() -> None:
    data, again, other = windows(), windows(), windows(seed=1)
    for step in (5, 3):
        (inputs, targets), (inputs2, targets2) = data[step], again[step]
        assert torch.equal(targets, targets2)
        assert all(torch.equal(inputs[name], inputs2[name]) for name in inputs)
    assert pairs_of(data[5]) != pairs_of(data[3])
    assert pairs_of(data[3]) != pairs_of(other[3])


@pytest.mark.parametrize("model", ["skip_gram", "cbow"])
def test_global_batch_does_not_depend_on_world_size(model) -> None:
    shares = [windows(model=model, rank=r, world_size=3, batch_size=150)[1] for r in range(3)]
    whole = windows(model=model, batch_size=150)[1]
    rows = len(whole[1])
    assert rows == 10
    assert {len(targets) for _, targets in shares} == {4}  # two more rows of padding
    for name, tensor in [("", whole[1]), *whole[0].items()]:
        if name == "candidates":  # rows from the eleventh on have other negatives
            continue
        dealt = torch.stack([share[0][name] if name else share[1] for share in shares], 1)
        assert torch.equal(dealt.flatten(0, 1)[:rows], tensor)
    assert not any(share[1][-1].any() for share in shares[1:])


def test_subsampling_probabilities_are_those_of_word2vec() -> None:
    counts = torch.tensor([0, 0, 100_000, 9_000, 400, 3])
    total = int(counts.sum())
    kept = keep_probability(counts, 1e-3)
    for word in (2, 3, 4, 5):  # word2vec.c, line 402
        cn, sample = int(counts[word]), 1e-3
        ran = ((cn / (sample * total)) ** 0.5 + 1) * (sample * total) / cn
        assert float(kept[word]) == pytest.approx(min(1.0, ran))
    assert kept[2] < 0.04 < kept[3] < 0.2
    assert kept[5] == 1
    assert torch.equal(keep_probability(counts, 0.0), torch.ones(6, dtype=torch.float64))


def test_words_are_dropped_with_these_probabilities() -> None:
    draw = np.random.default_rng(0)
    words = draw.choice([2, 3, 4], 30_000, p=[0.9, 0.09, 0.01])
    counts = torch.bincount(torch.from_numpy(words), minlength=5)
    data = Windows(RaggedTokens.from_sequences([words]), counts, subsample=0.01, batch_size=30_000)
    seen = torch.bincount(data[0][0]["input_ids"].flatten(), minlength=5)
    expected = keep_probability(counts, 0.01) * counts
    assert expected[2] < 0.2 * counts[2]
    for word in (2, 3, 4):  # four standard deviations at most
        assert abs(float(seen[word] - expected[word])) <= 4 * float(expected[word]) ** 0.5


def test_negatives_are_sampled_by_counts_to_the_power_of_three_quarters() -> None:
    counts = torch.tensor([0, 0, 10_000, 1_000, 0, 10])
    data = Windows(numbered([50]), counts, negatives_per_row=500, batch_size=50, subsample=0)
    drawn = torch.cat([data._negatives(100, torch.Generator().manual_seed(n)) for n in range(4)])
    shares = torch.bincount(drawn.flatten(), minlength=6) / drawn.numel()
    powers = torch.tensor([0, 0, 1000, 10_000 ** (9 / 16), 0, 10**0.75], dtype=torch.float64)
    assert negative_probability(counts).tolist() == pytest.approx((powers / powers.sum()).tolist())
    for share, expected in zip(shares.tolist(), (powers / powers.sum()).tolist(), strict=True):
        assert abs(share - expected) <= 4 * (expected / drawn.numel()) ** 0.5
    assert shares[0] == shares[1] == shares[4] == 0  # words that never occur are never sampled


def test_weights_of_negatives_add_up_to_negatives_per_pair() -> None:
    inputs, targets = windows(negatives=7, negatives_per_row=5)[0]
    span = ROW + 2 * 4
    assert targets.shape == (13, ROW, span + 5)
    pairs = targets[..., :span].sum(-1)
    torch.testing.assert_close(-targets[..., span:].sum(-1), 7 * pairs)
    assert inputs["candidates"].shape == (13, span + 5)


def test_weight_of_a_word_in_a_step_is_limited() -> None:
    draw = np.random.default_rng(0)
    words = np.where(draw.random(2_000) < 0.5, 2, draw.integers(3, 40, 2_000))
    counts = torch.bincount(torch.from_numpy(words), minlength=40)
    options = {"window": 4, "subsample": 0, "batch_size": 2_000}
    full, less = (
        Windows(RaggedTokens.from_sequences([words]), counts, max_weight=most, **options)[0]
        for most in (None, 900)
    )
    centers, candidates = less[0]["input_ids"], less[0]["candidates"]
    assert torch.equal(candidates, full[0]["candidates"])
    share = (less[1] / full[1]).nan_to_num(-1.0)  # remaining fraction of a pair's weight
    both = (centers == 2)[:, :, None] & (candidates == 2)[:, None, :] & (full[1] != 0)
    pairs, drawn = share[both & (full[1] > 0)], share[both & (full[1] < 0)]
    torch.testing.assert_close(
        drawn, pairs[:1].expand_as(drawn)
    )  # pairs and negatives are scaled equally
    rest = (centers != 2)[:, :, None] & (candidates != 2)[:, None, :] & (full[1] != 0)
    assert float(share[rest].median()) > 5 * float(pairs[0])  # mainly the frequent word is affected
    for weights, most in ((full[1], None), (less[1], 900)):
        of_two = float((weights.abs() * (candidates == 2)[:, None, :]).sum())
        assert of_two > 5_000 if most is None else of_two < 1.1 * most


def test_cbow_averages_the_neighbors_of_the_target() -> None:
    inputs, targets = windows(model="cbow", negatives=6, negatives_per_row=3)[0]
    weights = inputs["windows"]
    alone = inputs["candidates"][:, :ROW] == 42  # the only word of its text
    some = targets[..., :ROW].sum(-1) > 0
    assert int(some.sum()) == 199
    assert not (alone & some).any()
    torch.testing.assert_close(weights.sum(-1), some.float())
    rows, places, others = weights.nonzero(as_tuple=True)
    distance = inputs["input_ids"][rows, others] - inputs["candidates"][rows, places]
    assert 1 <= int(distance.abs().min()) <= int(distance.abs().max()) <= 4
    assert torch.equal(targets[..., :ROW], torch.eye(ROW) * some[..., None])
    assert torch.equal(targets[..., ROW:], (-2.0 * some[..., None]).expand(-1, -1, 3))


# Counts.


def count_by_loop(texts: list[list[int]], window: int) -> dict[tuple[int, int], float]:
    found: dict[tuple[int, int], float] = {}
    for text in texts:
        for here, a in enumerate(text):
            for there, b in enumerate(text):
                if a <= b and here != there and abs(here - there) <= window:
                    found[a, b] = found.get((a, b), 0.0) + 1 / abs(here - there)
    return found


@pytest.mark.parametrize("at_once", [1, 30, 10_000])
def test_counts_equal_a_plain_loop_for_any_chunk_size(at_once: int) -> None:
    draw = np.random.default_rng(0)
    texts = [draw.integers(2, 9, size).tolist() for size in (30, 1, 4, 60)]
    first, second, sums = count_pairs(
        RaggedTokens.from_sequences(map(np.array, texts)), 9, 3, at_once
    )
    assert bool((first <= second).all())
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    found = dict(zip(pairs, sums.tolist(), strict=True))
    assert found == pytest.approx(count_by_loop(texts, 3))


def test_pairs_are_served_in_both_orders() -> None:
    pairs = Pairs(*(torch.tensor(v) for v in ([2, 3, 4], [5, 3, 6], [1.0, 2.0, 0.5])))
    inputs, targets = pairs[torch.tensor([2, 0])]
    assert inputs["input_ids"].tolist() == [4, 2, 6, 5]
    assert inputs["candidates"].tolist() == [6, 5, 4, 2]
    assert targets.tolist() == [[0.5], [1.0], [0.5], [1.0]]


@pytest.mark.parametrize("world_size", [1, 3])
def test_each_held_out_pair_is_evaluated_once_over_all_processes(world_size: int) -> None:
    pairs = Pairs(torch.arange(50), torch.arange(50), torch.ones(50))
    shares = [HeldOutPairs(pairs, 8, rank, world_size) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    seen = [n for s in shares for i in range(len(s)) for n in s[i][0]["input_ids"].tolist()]
    assert sorted(seen) == sorted([*range(50)] * 2)


def test_held_out_pairs_are_not_used_for_training(tmp_path: Path) -> None:
    text = " ".join(np.random.default_rng(0).choice([*"abcdefghijklmnopqrst"], 3_000))
    (tmp_path / "text.txt").write_text(text)
    data = Cooccurrences(text=str(tmp_path / "text.txt"), benchmarks=[], batch_size=16)
    train, val = (
        set(zip(*(t.tolist() for t in data.splits[s].tensors[:2]), strict=True))
        for s in ("train", "val")
    )
    assert val
    assert not train & val
    assert len(train | val) == 20 * 21 // 2


# Texts and benchmarks.


def test_texts_are_split_by_characters() -> None:
    parts = split_texts(["abcd", "efghij", "kl"], 0.5)
    assert parts == {"train": ["abcd", "ef"], "val": ["ghij", "kl"]}


def test_rare_words_and_punctuation_are_dropped_before_windows(
    tmp_path,
) -> None:
    (tmp_path / "a.txt").write_text("The cat, the (rare) cat. The cat! The dog; the dog " * 2)
    (tmp_path / "b.txt").write_text("THE END of the cat. " + "x" * 30)
    data = ContextWindows(
        text=str(tmp_path / "*.txt"), min_count=4, benchmarks=[], val_fraction=0.1
    )
    known = [data.tokenizer.id_to_token(n) for n in range(data.vocab_size)]
    assert known == ["[PAD]", "[UNK]", "the", "cat", "dog"]
    rows = [data.words["train"][n].tolist() for n in range(2)]
    assert rows == [[2, 3, 2, 3, 2, 3, 2, 4, 2, 4] * 2, [2, 2, 3]]
    assert data.counts.tolist() == [0, 0, 12, 7, 4]


def test_questions_with_unknown_words_are_skipped_and_counted(small_texts: Path) -> None:
    vocabulary = {"dull": 2, "bad": 3, "awful": 4, "good": 5, "fine": 6}
    folder = small_texts / "word-similarity"
    (scored,) = word_benchmarks.read(
        "wordsim353", folder / word_benchmarks.FILES["wordsim353"][0], vocabulary
    )
    assert scored.asked == 13
    assert scored.words.tolist() == [[2, 3], [3, 4], [2, 5]]
    assert scored.answers.tolist() == [9, 9, 1]
    assert "unheard" in scored.unknown
    first, second = word_benchmarks.read("analogies", folder / "questions-words.txt", vocabulary)
    assert (first.name, second.name) == ("analogies/one-section", "analogies/another")
    assert (first.words.tolist(), first.answers.tolist(), first.asked) == ([[2, 6, 3]], [5], 5)
    assert (second.words.tolist(), second.answers.tolist()) == ([[5, 6, 3]], [4])
    assert (second.asked, second.unknown) == (2, ["unheard"])
    assert word_benchmarks.read("simlex999", folder / "EN-SIMLEX-999.txt", {})[0].words.shape == (
        (0, 2)
    )


def test_summary_counts_questions_and_unknown_words(small_texts: Path) -> None:
    data = ContextWindows(data_dir=str(small_texts), benchmarks=["wordsim353", "analogies"])
    data.setup("fit")
    assert "wordsim353: 12 of 13 questions, unknown words: unheard; " in data.summary
    assert data.summary.endswith("analogies: 6 of 7 questions, unknown words: unheard")


def test_invalid_benchmark_line_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("king queen 8.5\n\nking man woman\tqueen\n")
    with pytest.raises(UserError, match=r"line 3 is not a question of simlex999"):
        word_benchmarks.read("simlex999", tmp_path / "file", {})


def test_failed_benchmark_download_names_alternatives(tmp_path: Path, monkeypatch) -> None:
    def no_network(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    with pytest.raises(UserError) as error:
        ContextWindows(text="source", data_dir=str(tmp_path)).prepare_data()
    for part in ("EN-WS-353-ALL.txt", "githubusercontent", "configs/source/skip_gram.yaml"):
        assert part in str(error.value)
    ContextWindows(text="source", data_dir=str(tmp_path), benchmarks=[]).prepare_data()


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (ContextWindows, {"model": "glove"}, "skip_gram or cbow"),
        (ContextWindows, {"window": 0}, "data.window must be at least .* got 0"),
        (ContextWindows, {"negatives": -5}, "data.negatives must be at least .* got -5"),
        (
            ContextWindows,
            {"negatives_per_row": 0},
            "data.negatives_per_row must be at least .* got 0",
        ),
        (ContextWindows, {"subsample": -1e-4}, "data.subsample must be .* got -0.0001"),
        (ContextWindows, {"subsample": float("nan")}, "data.subsample must be .* got nan"),
        (ContextWindows, {"min_count": 0}, "data.min_count must be at least .* got 0"),
        (ContextWindows, {"max_vocab_size": 3}, "data.max_vocab_size must be at least .* got 3"),
        (ContextWindows, {"val_fraction": 1.0}, "data.val_fraction must be .* got 1.0"),
        (ContextWindows, {"batch_size": 0}, "data.batch_size must be at least .* got 0"),
        (ContextWindows, {"seed": -1}, "data.seed must be at least .* got -1"),
        (ContextWindows, {"benchmarks": ["wordsim"]}, "unknown benchmark 'wordsim'; choose from"),
        (ContextWindows, {"text": []}, "data.text is empty"),
        (Cooccurrences, {"window": -1}, "data.window must be at least .* got -1"),
        (
            Cooccurrences,
            {"min_pair_count": -0.5},
            "data.min_pair_count must be at least .* got -0.5",
        ),
    ],
)
def test_invalid_argument_is_named(kind, wrong: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        kind(**wrong)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "in its 0 characters only 0 words occur 5 times or more"),
        ("some words that occur but once", {}, "a smaller --data.min_count"),
        ("a b " * 20, {"batch_size": 2048}, "batch_size 2048 is larger than"),
        ("a b " * 20 + "c " * 4, {}, "the val split has 0 known words"),
    ],
)
def test_too_small_text_is_reported(tmp_path, text, options, message) -> None:
    (tmp_path / "text.txt").write_text(text)
    data = ContextWindows(text=str(tmp_path / "text.txt"), benchmarks=[], **options)

    def begin() -> None:
        data.setup("fit")
        data.train_dataloader()

    with pytest.raises(UserError, match=message):
        begin()


def test_too_few_pairs_and_missing_files_are_reported(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a b c " * 20)
    with pytest.raises(UserError, match="6 distinct pairs of words"):
        _ = Cooccurrences(text=str(tmp_path / "text.txt"), benchmarks=[]).splits
    with pytest.raises(UserError, match=r"--data.text: no file matches"):
        _ = ContextWindows(text=str(tmp_path / "other.txt"), benchmarks=[]).texts
