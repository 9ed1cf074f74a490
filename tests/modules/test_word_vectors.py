"""WordVectors: losses, learned similarities, benchmarks, figures and export."""

import inspect
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from gensim.models import KeyedVectors
from PIL import Image
from scipy.stats import spearmanr
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from torch.nn import functional as F

import export
import train
from callbacks import WordMap, WordNeighbors
from datamodules.loading.ragged import RaggedTokens
from datamodules.word_vectors.context_windows import ROW, Windows
from engine.errors import UserError
from modules import Classifier, WordVectors
from modules.nets import CBOW, MLP, GloVe, SkipGram
from modules.word_vectors import negative_sampling, weighted_squares
from tests.support import ROOT
from tests.support.synthetic_data import patch_checksums

NETS = {"SkipGram": SkipGram, "CBOW": CBOW, "GloVe": GloVe}
V = 30


def some_batch(model: str = "skip_gram") -> tuple[dict[str, Tensor], Tensor]:
    draw = np.random.default_rng(0)
    texts = RaggedTokens.from_sequences([draw.integers(2, V, size) for size in (37, 5, 20)])
    counts = torch.bincount(texts.tokens, minlength=V)
    return Windows(
        texts, counts, model, window=3, negatives=5, negatives_per_row=4, subsample=0, batch_size=60
    )[0]


def with_normal_weights(net: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5)
    return net


# Networks and losses.


def test_skip_gram_loss_and_gradient_follow_the_formula() -> None:
    net = with_normal_weights(SkipGram(V, 6))
    inputs, targets = some_batch()
    loss = negative_sampling(net(inputs), targets)
    loss.backward()
    u = net.words.weight.detach().clone().requires_grad_()
    v = net.contexts.weight.detach().clone().requires_grad_()
    expected = torch.zeros(())
    span = ROW + 2 * 3
    for words, candidates, labels in zip(*inputs.values(), targets, strict=True):
        for position, word in enumerate(words):
            pairs = 0
            for neighbor, is_pair in zip(candidates[:span], labels[position, :span], strict=True):
                if is_pair:
                    expected = expected - torch.log(torch.sigmoid(u[word] @ v[neighbor]))
                    pairs += 1
            for negative in candidates[span:]:  # five negatives per pair, estimated from four
                expected = expected - pairs * 5 / 4 * torch.log(
                    torch.sigmoid(-u[word] @ v[negative])
                )
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(net.words.weight.grad.to_dense(), u.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(net.contexts.weight.grad.to_dense(), v.grad, atol=1e-5, rtol=1e-5)


def test_cbow_loss_follows_the_formula() -> None:
    net = with_normal_weights(CBOW(V, 6))
    inputs, targets = some_batch("cbow")
    u, v = net.words.weight.detach(), net.contexts.weight.detach()
    expected = torch.zeros(())
    for row in range(len(targets)):
        span, weights = inputs["input_ids"][row], inputs["windows"][row]
        candidates = inputs["candidates"][row]
        for position in range(ROW):
            near = span[weights[position] > 0]
            if len(near):
                mean = u[near].mean(0)
                expected -= torch.log(torch.sigmoid(mean @ v[candidates[position]]))
                for negative in candidates[ROW:]:
                    expected -= 5 / 4 * torch.log(torch.sigmoid(-mean @ v[negative]))
    torch.testing.assert_close(negative_sampling(net(inputs), targets), expected)


def test_glove_loss_follows_the_formula() -> None:
    net = with_normal_weights(GloVe(V, 6))
    first, second = torch.tensor([3, 5, 9]), torch.tensor([4, 5, 2])
    counts = torch.tensor([[0.5], [20.0], [8.0]])
    loss = weighted_squares(net({"input_ids": first, "candidates": second}), counts, x_max=10)
    w, c = net.words.weight.detach(), net.contexts.weight.detach()
    expected = 0.0
    for i, j, x in zip(first, second, counts.flatten().tolist(), strict=True):
        logit = float(w[i, :6] @ c[j, :6] + w[i, 6] + c[j, 6])
        expected += min(1.0, (x / 10) ** 0.75) * (logit - math.log(x)) ** 2
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_initial_loss_is_that_of_a_uniform_prediction() -> None:
    for model, net in (("skip_gram", SkipGram(V, 6)), ("cbow", CBOW(V, 6))):
        inputs, targets = some_batch(model)
        pairs = targets.clamp(min=0).sum()
        loss = negative_sampling(net(inputs), targets) / pairs
        assert float(loss) == pytest.approx((1 + 5) * math.log(2))  # one pair, five negatives


@pytest.mark.parametrize("name", NETS)
def test_gradients_are_sparse_and_arguments_are_attributes(name: str) -> None:
    net = with_normal_weights(NETS[name](V, 6))
    assert net.vectors().shape == (V, 6)
    assert not net.vectors().requires_grad
    arguments = {key: getattr(net, key) for key in inspect.signature(type(net)).parameters}
    assert arguments == {"vocab_size": V, "dim": 6}
    words = torch.tensor([[3, 4]])
    inputs = {"input_ids": words, "candidates": words, "windows": torch.ones(1, 2, 2) / 2}
    if name == "GloVe":
        inputs = {"input_ids": words[0], "candidates": words[0]}
    net(inputs).sum().backward()
    for table in (net.words, net.contexts):
        gradient = table.weight.grad
        assert gradient.is_sparse
        assert set(gradient.coalesce().indices()[0].tolist()) == {3, 4}


# Learned similarities. In the synthetic text, x and y of the same kind have the same contexts.

KINDS = 6
CONFIGS = {
    "skip_gram": (
        *("source/skip_gram", "--data.subsample", 0.01, "--data.batch_size", 256),
        *("--model.optimizer.lr", 0.04),
    ),
    "cbow": (
        *("imdb/cbow", "--data.subsample", 0, "--data.batch_size", 256),
        *("--model.optimizer.lr", 0.1),
    ),
    "glove": (
        *("imdb/glove", "--data.min_pair_count", 0, "--data.batch_size", 64),
        *("--model.optimizer.lr", 0.1),
    ),
}


def write_synthetic_text(path: Path) -> Path:
    """Write phrases `near word near mark filler`; x and y of a kind have the same neighbors."""
    random = np.random.default_rng(0)
    words = []
    for _ in range(1_500):
        kind, second = random.integers(KINDS), random.integers(2)
        near = random.permutation([f"near{kind}a", f"near{kind}b", f"near{kind}c"])[:2]
        mark = ("her", "him")[second]
        words += [near[0], f"{'xy'[second]}{kind}", near[1], mark, f"so{random.integers(40)}"]
    path.write_text(" ".join(words))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, synthetic_texts: Path) -> dict[str, Path]:
    """Train each network on the synthetic text with its config; return the run folders."""
    folder = tmp_path_factory.mktemp("words")
    text = write_synthetic_text(folder / "text.txt")
    runs = {}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="ignore"):
        patch_checksums(synthetic_texts, patch)
        for name, (config, *more) in CONFIGS.items():
            arguments = [
                *("fit", "--config", ROOT / f"configs/{config}.yaml", "--data.text", text),
                *("--data.benchmarks", "[]", "--data.window", 2),
                *("--model.net.dim", 16, "--trainer.max_epochs", 10, "--runs_dir", folder),
                *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
                *("--trainer.callbacks", "[callbacks.WordNeighbors, callbacks.WordMap]", *more),
            ]
            runs[name] = train.main([*map(str, arguments)])
    return runs


def task_of(run: Path) -> WordVectors:
    return WordVectors.load_from_checkpoint(run / "checkpoints/best.ckpt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_words_with_the_same_contexts_become_neighbors(trained: dict[str, Path], name: str) -> None:
    task = task_of(trained[name])
    ids = [[task.index(f"{letter}{kind}") for kind in range(KINDS)] for letter in "xy"]
    x, y = task.unit_vectors()[torch.tensor(ids)]  # (KINDS, D), (KINDS, D)
    assert int(((x @ y.T).argmax(dim=1) == torch.arange(KINDS)).sum()) >= KINDS - 1
    if name != "glove":  # its summed vectors also make adjacent words similar
        neighbors = task.nearest([f"x{kind}" for kind in range(KINDS)], 1)
        assert sum(row[0][0] == f"y{kind}" for kind, row in enumerate(neighbors)) >= KINDS - 1


@pytest.mark.parametrize("name", ["skip_gram", "cbow"])
def test_synthetic_analogy_is_solved(trained: dict[str, Path], name: str) -> None:
    """For example, x0 is to y0 as x3 is to y3."""
    task = task_of(trained[name])
    pairs = [(a, b) for a in range(KINDS) for b in range(KINDS) if a != b]
    ids = [[task.index(w) for w in (f"x{a}", f"y{a}", f"x{b}", f"y{b}")] for a, b in pairs]
    questions = torch.tensor(ids)
    correct = int(task.correct_analogies(questions[:, :3], questions[:, 3]))
    assert correct >= 0.8 * len(pairs)


@pytest.mark.parametrize("name", CONFIGS)
def test_figures_and_neighbors_are_written(trained: dict[str, Path], name: str) -> None:
    for figure in ("word_map", "word_neighbours"):
        image = np.asarray(Image.open(trained[name] / f"figures/{figure}.png").convert("L")) / 255
        assert (image < 0.8).mean() > 0.001, figure  # text covers few pixels
    lines = (trained[name] / "samples/word_neighbours.txt").read_text().splitlines()
    assert len(lines) == 16
    assert all(line.count(",") == 7 for line in lines)


def test_exported_vectors_load_in_gensim(trained: dict[str, Path], tmp_path, capsys) -> None:
    checkpoint = trained["skip_gram"] / "checkpoints/best.ckpt"
    options = ("--checkpoint", checkpoint, "--format", "word2vec", "--output", tmp_path / "out")
    folder = export.main([*map(str, options)])
    loaded = KeyedVectors.load_word2vec_format(folder / "vectors.txt")
    task = task_of(trained["skip_gram"])
    words = [word for word in task.words if word]
    assert loaded.index_to_key == words
    vectors = task.net.vectors()[2:]
    assert torch.equal(torch.from_numpy(loaded.vectors), vectors)  # bit for bit
    (neighbors,) = task.nearest(["x3"], 5)
    assert [w for w, _ in loaded.most_similar("x3", topn=5)] == [w for w, _ in neighbors]


# Benchmarks.


def task_with_vectors(vectors: Tensor) -> WordVectors:
    """Return a task with given vectors for the words w0, w1, … after [PAD] and [UNK]."""
    words = ["[PAD]", "[UNK]", *(f"w{n}" for n in range(len(vectors)))]
    vocab = {word: index for index, word in enumerate(words)}
    net = SkipGram(len(words), vectors.shape[1])
    net.words.weight.data = torch.cat([torch.ones(2, vectors.shape[1]), vectors])
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    return WordVectors(net, tokenizer=tokenizer.to_str())


def test_correlation_equals_scipy_with_ties() -> None:
    vectors = torch.randn(20, 5)
    pairs = torch.randint(20, (50, 2))
    scores = torch.randint(0, 6, (50,)).float()
    task = task_with_vectors(vectors)
    cosines = F.cosine_similarity(vectors[pairs[:, 0]], vectors[pairs[:, 1]])
    expected = spearmanr(cosines.numpy().round(6), scores.numpy()).statistic
    assert float(task.correlation(pairs + 2, scores)) == pytest.approx(expected, abs=1e-3)
    assert float(task.correlation(pairs[:0], scores[:0])) == 0


def test_analogies_are_solved_by_the_nearest_other_word(monkeypatch) -> None:
    monkeypatch.setattr("modules.word_vectors.QUESTIONS_PER_BATCH", 7)
    vectors = F.normalize(torch.randn(25, 4), dim=1)
    task = task_with_vectors(vectors)
    questions = torch.randint(25, (40, 3))
    answers = task.solve_analogies(questions + 2) - 2
    for (a, b, c), answer in zip(questions.tolist(), answers.tolist(), strict=True):
        cosines = vectors @ (vectors[b] - vectors[a] + vectors[c])
        cosines[[a, b, c]] = -math.inf
        assert answer == int(cosines.argmax())


def test_special_tokens_are_never_predicted() -> None:
    task = task_with_vectors(torch.ones(4, 3) + 0.01 * torch.randn(4, 3))
    assert int(task.solve_analogies(torch.tensor([[2, 3, 4]]))) == 5
    (near,) = task.nearest(["w0"], 10)
    assert sorted(word for word, _ in near) == ["w1", "w2", "w3"]
    assert task.words == ["", "", "w0", "w1", "w2", "w3"]


@pytest.mark.slow
def test_benchmark_scores_and_coverage_are_in_the_results(run: Callable, small_texts: Path) -> None:
    small = ("--data.batch_size", 256, "--model.net.dim", 8, "--trainer.max_epochs", 1)
    config = ROOT / "configs/imdb/skip_gram.yaml"
    with pytest.warns(UserWarning, match="not in the vocabulary: terrible, actor, funny"):
        folder = run("fit", "--config", config, "--data.data_dir", small_texts, *small)
    metrics = json.loads((folder / "results.json").read_text())["metrics"]
    assert metrics["val/wordsim353/asked"] == pytest.approx(12 / 13)
    assert metrics["val/simlex999/asked"] == pytest.approx(12 / 13)
    assert metrics["val/analogies/asked"] == pytest.approx(6 / 7)
    assert -1 <= metrics["val/wordsim353"] <= 1
    sections = 5 * metrics["val/analogies/one-section"] + metrics["val/analogies/another"]
    assert metrics["val/analogies"] == pytest.approx(sections / 6)


# Errors.


def test_invalid_arguments_and_unknown_words_are_errors() -> None:
    with pytest.raises(ValueError, match="loss must be"):
        WordVectors(SkipGram(V), loss="hinge")
    with pytest.raises(ValueError, match="x_max must be above 0, got -1"):
        WordVectors(SkipGram(V), x_max=-1)
    with pytest.raises(Exception, match="'zebra' is not in the vocabulary"):
        task_with_vectors(torch.randn(4, 3)).nearest(["zebra"])
    with pytest.raises(ValueError, match="number must be at least 1"):
        WordNeighbors(number=0)
    with pytest.raises(ValueError, match="words is empty"):
        WordNeighbors([])
    for wrong in ({"words": 2}, {"skip": -1}, {"method": "umap"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            WordMap(**wrong)


def test_network_that_does_not_fit_the_data_is_a_user_error(refused, small_texts: Path) -> None:
    arguments = ("--config", ROOT / "configs/imdb/cbow.yaml", "--data.data_dir", small_texts)
    error = refused("fit", *arguments, "--data.batch_size", 256, "--data.model", "skip_gram")
    assert "CBOW does not fit ContextWindows" in error


@pytest.mark.parametrize("wrong", [("AdamW",), ("SGD", "--model.optimizer.weight_decay", 0.1)])
def test_optimizer_without_sparse_gradients_is_a_user_error(
    refused, tmp_path, wrong: tuple
) -> None:
    write_synthetic_text(tmp_path / "text.txt")
    arguments = ("--config", ROOT / "configs/source/skip_gram.yaml", "--data.text", "text.txt")
    error = refused("fit", *arguments, "--model.optimizer", *wrong)
    assert f"{wrong[0]} does not support the sparse gradients" in error
    assert "choose --model.optimizer SGD (without weight decay), Adagrad or SparseAdam" in error


def test_word2vec_export_requires_word_vectors(tmp_path: Path, capsys) -> None:
    task = Classifier(MLP(hidden_sizes=[4]))
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(SystemExit) as exit:
        export.main(
            ["--checkpoint", str(tmp_path / "other.ckpt"), "--format", "word2vec", "--output", "o"]
        )
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert "holds the task modules.classifier.Classifier, expected modules.WordVectors" in error


def test_unknown_word_in_another_case_gets_a_hint() -> None:
    with pytest.raises(UserError, match="Did you mean 'w3'"):
        task_with_vectors(torch.randn(4, 3)).nearest(["W3"])
