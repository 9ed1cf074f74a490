"""Speed of skip-gram and CBOW against gensim: `python -m benchmarks.words`.

Words per second of training on IMDB's reviews from DATA_DIR if present, else on random words with a
Zipf distribution: `train.py fit` with configs/imdb/*.yaml, with data loading, checks and logging
but without start-up; and gensim's Word2Vec, compiled C, without building the vocabulary. Tokens,
width, window, negatives, subsampling and threads are equal (gensim has one more thread, which
distributes the work). Candidates alternate; ratios are taken round by round. Words are counted
before subsampling.

`--quality` trains gensim once on the whole text for as many epochs as our config, and prints the
scores of its vectors; ours are in the run's results.json.
"""

import contextlib
import io
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import gensim
import numpy as np
import torch
import yaml
from gensim.models import Word2Vec

from benchmarks.table import Page, parser, ratio
from benchmarks.timer import StepTimer
from benchmarks.trainer import rounds
from cli.main import main as train
from datamodules import ContextWindows
from engine.errors import UserError
from engine.process import prepare_process
from modules import WordVectors
from modules.nets import SkipGram

MODELS = ("skip_gram", "cbow")


def settings(model: str) -> dict[str, Any]:
    """Return the hyper-parameters of a config under gensim's names."""
    config = yaml.safe_load(Path(f"configs/imdb/{model}.yaml").read_text())
    task, data = config["model"]["init_args"], config["data"]["init_args"]
    return {
        "sg": int(model == "skip_gram"),
        "vector_size": task["net"]["init_args"]["dim"],
        "window": data["window"],
        "negative": data["negatives"],
        "sample": data["subsample"],
        "alpha": task["optimizer"]["init_args"]["lr"],
        "epochs": config["trainer"]["max_epochs"],
        "min_count": 1,  # rare words are already removed from our tokens
        "workers": torch.get_num_threads(),
        "seed": 1,
    }


def sentences(data: ContextWindows) -> list[list[str]]:
    """Return the training texts as lists of words for gensim, without rare words."""
    words = [data.tokenizer.id_to_token(number) or "" for number in range(data.vocab_size)]
    texts = data.words["train"]
    return [[words[n] for n in texts[row].tolist()] for row in range(len(texts))]


def write_text_sample(reviews: int, path: Path) -> str:
    """Write reviews, or random words, as JSON lines; return the name of the data."""
    try:
        data = ContextWindows(benchmarks=[])
        data.prepare_data()
        texts, name = data.texts["train"][:: max(1, 47_500 // reviews)][:reviews], "IMDB"
    except UserError:
        draw = np.random.default_rng(0)
        ranks = (np.exp(draw.random((reviews, 230)) * np.log(40_000))).astype(int)
        texts, name = [" ".join(map("w{}".format, row)) for row in ranks.tolist()], "random words"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return name


def ours(model: str, text: Path) -> float:
    """Return the words per second of one epoch of `train.py fit`."""
    with tempfile.TemporaryDirectory() as runs_dir, contextlib.redirect_stdout(io.StringIO()):
        train(
            [
                *("fit", "--config", f"configs/imdb/{model}.yaml", "--runs_dir", runs_dir),
                *("--data.text", str(text), "--data.benchmarks", "[]"),
                *("--trainer.max_epochs", "1", "--test_after_fit", "false"),
                *("--trainer.accelerator", "cpu"),
                *("--trainer.callbacks", "[benchmarks.timer.StepTimer]"),
            ]
        )
    config = yaml.safe_load(Path(f"configs/imdb/{model}.yaml").read_text())
    return float(config["data"]["init_args"]["batch_size"] / StepTimer.last)


def theirs(model: str, texts: list[list[str]]) -> float:
    """Return the words per second of one epoch of gensim."""
    vectors = Word2Vec(**settings(model))
    vectors.build_vocab(texts)
    started = time.perf_counter()
    vectors.train(texts, total_examples=vectors.corpus_count, epochs=1)
    return float(vectors.corpus_total_words / (time.perf_counter() - started))


def quality(model: str) -> dict[str, float]:
    """Return the benchmark scores of gensim's vectors, trained for as long as our config."""
    data = ContextWindows()
    data.setup("fit")
    vectors = Word2Vec(sentences(data), **settings(model))
    net = SkipGram(data.vocab_size, vectors.vector_size)
    for word, number in data.tokenizer.get_vocab().items():
        if word in vectors.wv:
            net.words.weight.data[number] = torch.from_numpy(vectors.wv[word].copy())
    task = WordVectors(net, tokenizer=data.tokenizer_json)
    analogies = [q for q in data.questions if q.name.startswith("analogies")]
    scores = {
        q.name: float(task.correlation(q.words, q.answers))
        for q in data.questions
        if q not in analogies
    }
    correct = sum(int(task.correct_analogies(q.words, q.answers)) for q in analogies)
    return scores | {"analogies": correct / max(1, sum(len(q.words) for q in analogies))}


def main() -> None:
    """Measure and print a table; `--write` also writes it to a file."""
    command = parser("words", __doc__, rounds=5)
    command.add_argument("--reviews", type=int, default=10_000, help="texts per measurement")
    command.add_argument("--quality", choices=MODELS, help="score gensim's vectors instead")
    options = command.parse_args()
    prepare_process()
    if options.quality:
        scores = quality(options.quality)
        print(", ".join(f"{name} {score:.4f}" for name, score in scores.items()))
        return
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "text.jsonl")
        name = write_text_sample(options.reviews, text)
        data = ContextWindows(text=str(text), benchmarks=[])
        data.setup("fit")
        texts = sentences(data)
        page = Page(
            "words",
            "Speed of word vectors",
            f"{name}, {sum(map(len, texts)):,} words, vocabulary {data.vocab_size - 2:,}, "
            f"medians of {options.rounds} rounds.",
            gensim,
        )
        page.table("net", "gensim, words/s", "`train.py fit`, words/s", "ratio")
        for model in MODELS:
            results = rounds(
                {
                    "theirs": lambda model=model: theirs(model, texts),  # type: ignore[misc]
                    "ours": lambda model=model: ours(model, text),  # type: ignore[misc]
                },
                options.rounds,
            )
            speeds = [f"{statistics.median(values):,.0f}" for values in results.values()]
            page.row(model, *speeds, f"{ratio(results['ours'], results['theirs']):.2f} x")
    page.write(options.write)


if __name__ == "__main__":
    main()
