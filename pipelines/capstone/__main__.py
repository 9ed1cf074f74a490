"""Build the capstone: train, index, evaluate, decide, register, serve, test, report.

    python -m pipelines.capstone
    python -m pipelines.capstone --docs ~/papers --questions questions.jsonl
    python -m pipelines.capstone --full

Encoder, reader and guard are fine-tuned on the documents, and on SQuAD and the data of
safety.guard_data where the folder of the data sets (DATA_DIR) has them. The documents are indexed
with the encoder, and questions with known answers are asked. Answers are made by the reader if its
F1 is higher than that of the best sentences beyond noise. The gates of the config (`expect`) decide
whether encoder and guard become the champions of the registry; a refused system has exit code 1.

The output folder has report.html, report.json, slides.html, and serve.yaml: `python serve.py
--config runs/capstone/serve.yaml` serves the result. A stage runs again only if its inputs changed.
"""

import argparse
import hashlib
import json
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from engine.errors import UserError
from engine.run.expectations import Judgment, judge
from engine.run.record import git_commit, versions
from integrations.mlflow_registry import register, sha256, tracking_uri
from pipelines import train
from pipelines.capstone import data, report
from pipelines.capstone.evaluation import ask_all, better_answerer
from pipelines.capstone.service import try_service
from pipelines.capstone.settings import Capstone, Training, read_settings
from pipelines.capstone.stages import Result, Stages
from pipelines.files import read_json, stage
from retrieval.documents import Document, Skipped, read_documents
from retrieval.encoders import SentenceVectors
from retrieval.index import Index, current_version
from retrieval.indexing import update_index
from retrieval.opening import AnsweringSettings, open_answering, open_reader
from safety import calibrate
from safety.evaluate_guard import read_table
from safety.guard import HARMLESS, Guard

CONFIG = Path("configs/capstone/capstone.yaml")
OUTPUT = Path("runs/capstone")
SHORT_PARAGRAPHS = 400  # of SQuAD, in the short settings
SMOKE_QUESTIONS, HARMFUL_QUESTIONS = 10, 3
NAMES = ("encoder", "reader", "guard")
UNKNOWN = (  # asked of any documents, in addition to questions that are made from them
    *("Who won the football world cup in 1954?", "What is the capital of Mongolia?"),
    *("How long do you boil an egg?", "What do koalas eat?", "How deep is Lake Baikal?"),
)


class Build:
    """One run of the capstone.

    Args:
        settings: The config.
        output: Folder of all results.
        full: Train with the full settings.
    """

    def __init__(self, settings: Capstone, output: Path, full: bool) -> None:
        self.settings = settings
        self.output = output
        self.full = full
        self.stages = Stages(output / "stages")

    def run(self) -> dict[str, Judgment]:
        """Run all stages, write the report, and return what the gates say."""
        started = time.monotonic()
        documents, squad_questions = self.read()
        key = {document.name: _hash(document.text) for document in documents}
        how = [key, self.full, vars(self.settings.squad), data.found_data_sets(self.settings.squad)]
        made = self.stages.run("data", how, lambda: self.make_data(documents))
        models = {name: self.train(name, how, made) for name in NAMES}
        calibration = models["guard"]["calibration"]
        indexed = self.stages.run("index", [key, models["encoder"]], lambda: self.index(documents))
        questions = [*self.questions(), *squad_questions]
        inputs = [models, indexed, questions]
        asked = self.stages.run("evaluation", inputs, lambda: self.evaluate(questions))
        served = [models, asked, indexed, vars(self.settings.load)]
        tested = self.stages.run("service", served, lambda: self.test(asked))
        metrics = {**asked["metrics"], **tested["metrics"]}
        for name, model in models.items():
            metrics |= {f"{name}/{key}": value for key, value in model["metrics"].items()}
        metrics["memory/peak_mb"] = max(peak_memory(), tested["metrics"]["load/memory_mb"])
        judgments = judge(self.settings.expect, metrics)
        accepted = all(one.verdict == "met" for one in judgments.values())
        registered: Result = {}
        if accepted:
            registered = self.stages.run("registry", models, self.register)
        found = {
            "accepted": accepted,
            "gates": {name: vars(judgment) for name, judgment in judgments.items()},
            "metrics": metrics,
            "settings": "full" if self.full else "short",
            "documents": indexed,
            "data": made,
            "answers_by": asked["answers_by"],
            "questions": asked["rows"],
            "latencies_ms": tested["latencies_ms"],
            "calibration": calibration,
            "registered": registered,
            "curves": {name: model["curve"] for name, model in models.items()},
            "seconds": self.stages.seconds | {"this run": round(time.monotonic() - started, 1)},
            "machine": f"{os.cpu_count()} CPU cores ({platform.machine()})",
            "git_commit": git_commit(),
            "date": time.strftime("%Y-%m-%d"),
            "versions": versions(),
        }
        report.write(found, self.output)
        return judgments

    def read(self) -> tuple[list[Document], list[data.Asked]]:
        """Return the documents to index, and questions about those of SQuAD's form."""
        read = list(read_documents(self.settings.documents))
        for skipped in [one for one in read if isinstance(one, Skipped)]:
            print(f"skipped {skipped.name}: {skipped.reason}")
        documents = [one for one in read if isinstance(one, Document)]
        if not documents:
            raise UserError(f"no documents in {', '.join(self.settings.documents)}.")
        more, questions = data.squad_documents(self.settings.squad)
        return [*documents, *more], questions

    def make_data(self, documents: Sequence[Document]) -> Result:
        limit = None if self.full else SHORT_PARAGRAPHS
        found = list(data.sections(documents))
        return data.write_training_data(found, self.settings.squad, self.output / "data", limit)

    def train(self, name: str, how: list[Any], made: Result) -> Result:
        """Train a model, and return its metrics and its learning curve."""
        training: Training = getattr(self.settings, name)
        words = [*self.data_of(name, made), *(training.full if self.full else training.short)]

        def make() -> Result:
            where = ["--runs_dir", str(self.output / "runs"), "--experiment", f"capstone-{name}"]
            folder = self.output / name
            train.main(["--config", training.config, "--output", str(folder), *where, *words])
            results = read_json(folder / "results.json")
            more = {"calibration": self.calibrate()} if name == "guard" else {}
            return more | {
                "metrics": {k: v for k, v in results["metrics"].items() if k.startswith("val/")},
                "sha256": sha256(self.checkpoint(name)),
                "curve": report.learning_curve(self.output / "runs" / f"capstone-{name}"),
            }

        return self.stages.run(name, [how, made, words, training.config], make)

    def data_of(self, name: str, made: Result) -> list[str]:
        """Return the arguments of train.py for the data of a model."""
        folder = self.output / "data"
        if name == "encoder":
            return ["--data.train", str(folder / "pairs.jsonl")]
        if name == "reader":
            train, val = (str(folder / f"reader_{split}.json") for split in ("train", "val"))
            return ["--data.train", json.dumps([train]), "--data.val", val, "--data.test", val]
        tables = {split: str(folder / f"guard/{split}.csv") for split in ("train", "val", "test")}
        words = [word for split, path in tables.items() for word in (f"--data.{split}", path)]
        return [*words, "--data.classes", json.dumps(made["guard_classes"])]

    def checkpoint(self, name: str) -> Path:
        return self.output / name / "checkpoints/best.ckpt"

    def calibrate(self) -> Result:
        """Choose the threshold of the guard, beside its checkpoint."""
        guard = ["--guard", str(self.checkpoint("guard"))]
        return calibrate.main([*guard, "--data", str(self.output / "data/guard")])

    def index(self, documents: Sequence[Document]) -> Result:
        """Index the documents; an index of another encoder is replaced."""
        folder = self.output / "index"
        encoder = SentenceVectors(str(self.checkpoint("encoder")))
        if current_version(folder) is not None:
            made_with = Index.open(folder, verify=False).manifest["encoder"]
            if made_with["fingerprint"] != encoder.fingerprint:
                shutil.rmtree(folder)
        done = update_index(folder, documents, encoder)
        return {"documents": len(documents), "chunks": done.chunks, "encoder": encoder.fingerprint}

    def questions(self) -> list[data.Asked]:
        """Return the questions of the config, or else those made from the documents."""
        if self.settings.questions is not None:
            return data.read_questions(self.settings.questions)
        made = read_json(self.output / "data/reader_val.json")["data"]
        cloze = [article for article in made if "document" in article]
        found = [
            data.Asked(qa["question"], qa["answers"][0]["text"], article["document"])
            for article in cloze[:40]
            for qa in article["paragraphs"][0]["qas"]
        ]
        return [*found, *(data.Asked(question, None) for question in UNKNOWN)]

    def evaluate(self, questions: Sequence[data.Asked]) -> Result:
        """Ask the questions, and decide whether the reader answers."""
        answering = open_answering(AnsweringSettings(self.output / "index"))
        reader = open_reader(self.checkpoint("reader"))
        metrics, rows = ask_all(answering, reader, questions)
        harm = Guard(self.checkpoint("guard"))
        scores = harm.judge([asked.question for asked in questions])
        metrics["guard/refused_questions"] = sum(p >= harm.threshold for p in scores) / len(scores)
        return {"metrics": metrics, "rows": rows, "answers_by": better_answerer(rows)}

    def test(self, asked: Result) -> Result:
        """Write serve.yaml, and test the server that it describes."""
        paths = {"rag": "index", "guard": "guard/checkpoints/best.ckpt"}
        if asked["answers_by"] == "reader":
            paths["rag_reader"] = "reader/checkpoints/best.ckpt"
        serve = {name: str(self.output.absolute() / path) for name, path in paths.items()}
        config = self.output / "serve.yaml"
        config.write_text(yaml.safe_dump(serve), encoding="utf-8")
        reader = Path(serve["rag_reader"]) if "rag_reader" in serve else None
        answering = open_answering(AnsweringSettings(self.output / "index", reader))
        guard = Guard(self.checkpoint("guard"))
        expected: dict[str, str | None] = {}
        for row in asked["rows"][:: max(1, len(asked["rows"]) // SMOKE_QUESTIONS)]:
            answer = answering.ask(row["question"])
            texts = [row["question"], *([] if answer.abstained else [answer.answer])]
            refused = max(guard.judge(texts)) >= guard.threshold
            expected[row["question"]] = None if refused else answer.answer
        prompts = read_table(self.output / "data/guard/test.csv")
        harmful = [prompt.text for prompt in prompts if prompt.label != HARMLESS]
        scores = guard.judge(harmful)
        worst = sorted(zip(scores, harmful, strict=True), reverse=True)[:HARMFUL_QUESTIONS]
        refused_texts = [text for score, text in worst if score >= guard.threshold]
        options = ("--config", config, "--log_file", os.devnull, "--threads", "1")
        metrics = try_service(options, expected, refused_texts, self.settings.load)
        return {"latencies_ms": metrics.pop("latencies_ms"), "metrics": metrics}

    def register(self) -> Result:
        """Make encoder and guard the champions of the registry."""
        uri = tracking_uri(self.output)
        return {
            name: register(self.checkpoint(name), f"capstone-{name}", uri, "champion")
            for name in ("encoder", "guard")
        } | {"registry": uri}


def peak_memory() -> float:
    """Return the largest resident memory of this process so far in MB."""
    scale = 1e6 if sys.platform == "darwin" else 1e3
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale, 1)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m pipelines.capstone",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", type=Path, default=CONFIG, metavar="FILE", help=f"({CONFIG})")
    add("--docs", nargs="+", metavar="PATH", help="documents in place of those of the config")
    add("--questions", metavar="FILE", help="JSON lines of questions about them")
    add("--output", type=Path, default=OUTPUT, metavar="FOLDER", help=f"({OUTPUT})")
    add("--full", action="store_true", help="train with the full settings")
    return parser


def main(args: list[str] | None = None) -> Path:
    """Run a command line, and return the output folder.

    Raises:
        SystemExit: With code 1 if a gate is not met, 2 after a user error.
    """
    options, flags = build_parser().parse_known_args(args)
    with stage("capstone"):
        if options.docs:  # the questions of the config are about other documents
            flags += ["--documents", json.dumps(options.docs), "--questions", "null"]
        if options.questions:
            flags += ["--questions", options.questions]
        settings = read_settings(options.config, flags)
        judgments = Build(settings, options.output, options.full).run()
    for name, judgment in judgments.items():
        print(f"{judgment.verdict}: {name} {judgment.value} {judgment.expected}")
    print(f"report: {options.output / 'report.html'}, slides: {options.output / 'slides.html'}")
    if any(judgment.verdict != "met" for judgment in judgments.values()):
        print("refused: a gate is not met; nothing was registered")
        sys.exit(1)
    print(f"serve it: python serve.py --config {options.output / 'serve.yaml'}")
    return Path(options.output)


if __name__ == "__main__":
    main()
