"""Our skip-gram and CBOW against gensim's: `python -m benchmarks.words`.

Words a second of training on the reviews of IMDB where DATA_DIR has them, else on random words by
Zipf's law: `train.py fit` with configs/imdb/*.yaml, its data loading, checks and logs counted, but
not the start; and gensim's Word2Vec, compiled C, counted from the vocabulary on. Both get the same
tokens, width, window, negatives, subsampling and number of threads (gensim has one more, which
hands out the work), and take turns; ratios are taken round by round. Words are those of the text,
before frequent ones are thinned out.

`--quality` trains gensim once on the whole text, as long as our config does, and prints what its
vectors score; ours are in the run's results.json.
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
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from benchmarks.table import Page, parser, ratio
from benchmarks.timer import StepTimer
from benchmarks.trainer import rounds
from cli.main import main as train
from datamodules import ContextWindows
from engine.process import prepare_process
from modules import WordVectors
from modules.nets import SkipGram

MODELS = ("skip_gram", "cbow")


def settings(model: str) -> dict[str, Any]:
    """What a config says, as gensim calls it."""
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
        "min_count": 1,  # our tokens have no rare words any more
        "workers": torch.get_num_threads(),
        "seed": 1,
    }


def sentences(data: ContextWindows) -> list[list[str]]:
    """The training texts as gensim takes them, of the words that we train on."""
    words = [data.tokenizer.id_to_token(number) or "" for number in range(data.vocab_size)]
    texts = data.words["train"]
    return [[words[n] for n in texts[row].tolist()] for row in range(len(texts))]


def some_text(reviews: int, path: Path) -> str:
    """Write some reviews, or random words, as one JSON line each; says which it was."""
    try:
        data = ContextWindows(benchmarks=[])
        data.prepare_data()
        texts, name = data.texts["train"][:: max(1, 47_500 // reviews)][:reviews], "IMDB"
    except MisconfigurationException:
        draw = np.random.default_rng(0)
        ranks = (np.exp(draw.random((reviews, 230)) * np.log(40_000))).astype(int)
        texts, name = [" ".join(map("w{}".format, row)) for row in ranks.tolist()], "random words"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return name


def ours(model: str, text: Path) -> float:
    """Words a second of an epoch of `train.py fit`."""
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
    """Words a second of an epoch of gensim."""
    made = Word2Vec(**settings(model))
    made.build_vocab(texts)
    started = time.perf_counter()
    made.train(texts, total_examples=made.corpus_count, epochs=1)
    return float(made.corpus_total_words / (time.perf_counter() - started))


def quality(model: str) -> dict[str, float]:
    """What gensim's vectors score, trained as our config trains."""
    data = ContextWindows()
    data.setup("fit")
    made = Word2Vec(sentences(data), **settings(model))
    net = SkipGram(data.vocab_size, made.vector_size)
    for word, number in data.tokenizer.get_vocab().items():
        if word in made.wv:
            net.words.weight.data[number] = torch.from_numpy(made.wv[word].copy())
    task = WordVectors(net, tokenizer=data.tokenizer_json)
    analogies = [q for q in data.questions if q.name.startswith("analogies")]
    scores = {
        q.name: float(task.correlation(q.words, q.answers))
        for q in data.questions
        if q not in analogies
    }
    right = sum(int(task.correct_analogies(q.words, q.answers)) for q in analogies)
    return scores | {"analogies": right / max(1, sum(len(q.words) for q in analogies))}


def main() -> None:
    """Measure and print; `--write` also puts the table into a file."""
    command = parser("words", __doc__, rounds=5)
    command.add_argument("--reviews", type=int, default=10_000, help="texts of a turn")
    command.add_argument("--quality", choices=MODELS, help="score gensim's vectors instead")
    options = command.parse_args()
    prepare_process()
    if options.quality:
        scores = quality(options.quality)
        print(", ".join(f"{name} {score:.4f}" for name, score in scores.items()))
        return
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "text.jsonl")
        name = some_text(options.reviews, text)
        data = ContextWindows(text=str(text), benchmarks=[])
        data.setup("fit")
        texts = sentences(data)
        page = Page(
            "words",
            "Speed of word vectors",
            f"{name}, {sum(map(len, texts)):,} words, {data.vocab_size - 2:,} different ones, "
            f"medians of {options.rounds} rounds.",
            gensim,
        )
        page.table("net", "gensim, words/s", "`train.py fit`, words/s", "ratio")
        for model in MODELS:
            seen = rounds(
                {
                    "theirs": lambda model=model: theirs(model, texts),  # type: ignore[misc]
                    "ours": lambda model=model: ours(model, text),  # type: ignore[misc]
                },
                options.rounds,
            )
            speeds = [f"{statistics.median(values):,.0f}" for values in seen.values()]
            page.row(model, *speeds, f"{ratio(seen['ours'], seen['theirs']):.2f} x")
    page.write(options.write)


if __name__ == "__main__":
    main()
