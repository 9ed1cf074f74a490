"""Write the tables that a guard classifier is trained and evaluated on.

    python -m safety.guard_data --output data/guard
    python -m safety.guard_data --output data/guard-without-advbench --leave_out advbench

Classes: `harmful` (requests of AdvBench and HarmBench, without its copyright behaviors),
`injection` (deepset's prompt injections), `toxic` (hate speech of Davidson et al. 2017) and
`harmless`: requests of safety/prompts/harmless.yaml that have the forms of the harmful ones,
prompts with alarming words of safety/prompts/alarming.txt, instructions, questions, reviews and
tweets.

train.csv, val.csv and test.csv have the columns text, label, source and rule. 15 % of the rows of
each source are val, 20 % test; all of a source that is left out are test, and of alarming.txt every
second line. Training and validation rows are also rewritten by rules of safety/rewriting.py, test
rows by others, harmful and harmless ones alike.
"""

import argparse
import csv
import gzip
import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from datamodules.loading.files import default_data_dir, verify
from datamodules.question_answering.squad import read_squad
from datamodules.text.reading import read_utf8
from engine.errors import UserError, exit_on_user_error
from safety.rewriting import rules_of

SHA256 = {
    "advbench/harmful_behaviors.csv": (
        "24b318dc5e7aff004d7de33f172ff0c9d2119434bf08291f4cfe9df1dd681064"
    ),
    "safety/harmbench_behaviors_text_all.csv.gz": (
        "dac146ac4060b10843dbe1aa12b95d4fd4288b46cfbcd668411647ba2431fcd2"
    ),
    "safety/deepset-prompt-injections-train.jsonl.gz": (
        "f1658434ce2177d0e6db8ad7b2276a666c2ea001543161781453d5318bd31719"
    ),
    "safety/davidson-labeled_data.csv.gz": (
        "cc7309194d9c848205c0bc8a6a86e9a5bd25af53d93e4c81f1d0870f7694349c"
    ),
    "instruction/rasbt-instruction-data.json.gz": (
        "014521bc885d481206f343834759ecc510e547c72cfac5510b58a3ed63ec9683"
    ),
    "instruction/self-instruct-seed_tasks.jsonl.gz": (
        "745f14c264adc72e1de9201bc0fd27852f0af989208c1ae70c947bfe0aef6092"
    ),
    "instruction/self-instruct-user_oriented.jsonl.gz": (
        "803db0333034594898f5a6d54e4a9dd4c99c6a31a5b541b5467af0886164b31a"
    ),
    "squad/train-part-44-articles.json.gz": (
        "688e469dc0a1266e20aad1122cad30a7dd9d103b440f89d300f18b35536cb309"
    ),
    "sst2/sentiment-train.gz": "9fe43fd3600315b04b2c0180d56418297e337c02b18a58acd2f2a8f1d34bacc8",
}
HARMFUL_SOURCES = ("advbench", "harmbench")  # one may be left out
PLAIN = "none"  # the rule of a prompt that is not rewritten
SIZES = {"squad": 400, "sst2": 200, "davidson": 350, "instructions": 650}  # random rows of each
TEMPLATES_PER_TASK = 4
REWRITTEN_TEST = 60  # harmful test prompts that are rewritten by every rule, and as many harmless
REWRITINGS = {  # per training row
    "advbench": 2,
    "harmbench": 2,
    "harmbench_contextual": 2,
    "forms": 2,
    "alarming": 2,
    "instructions": 1,
    "squad": 1,
    "injections": 1,
}
# Sources of harmless prompts, as opposed to tweets; `documents`: questions of the capstone.
TESTED = ("forms", "alarming", "instructions", "squad", "documents")


class Prompt(NamedTuple):
    """A labeled prompt."""

    text: str
    label: str  # harmless, harmful, injection or toxic
    source: str
    rule: str = PLAIN
    key: str = ""  # rows of the same key are in the same split; by default the text


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m safety.guard_data", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="FOLDER", help="where the tables are written")
    add("--leave_out", choices=HARMFUL_SOURCES, help="a source that is not trained on")
    add("--data_dir", type=Path, metavar="FOLDER", help="data sets (default: DATA_DIR, else data)")
    return parser


def main(args: list[str] | None = None) -> Path:
    """Run a command line, such as `main(["--output", …])`, and return the folder.

    Raises:
        SystemExit: With code 2 after a user error, reported in one line on stderr.
    """
    options = build_parser().parse_args(args)
    with exit_on_user_error("guard_data"):
        prompts = read_prompts(options.data_dir or Path(default_data_dir()))
        tables = make_tables(prompts, options.leave_out)
        try:
            options.output.mkdir(parents=True, exist_ok=True)
            for split, rows in tables.items():
                write_table(options.output / f"{split}.csv", rows)
        except OSError as error:
            raise UserError(f"--output: cannot write {options.output}: {error}.") from error
    for split, rows in tables.items():
        counts = Counter(row.label for row in rows)
        print(f"{split}: " + ", ".join(f"{n:,} {label}" for label, n in counts.most_common()))
    return options.output


# Sources.


def read_prompts(data_dir: Path) -> list[Prompt]:
    """Return the prompts of all sources, none twice.

    Raises:
        UserError: If a file is missing or is not the expected one.
    """

    find = find_in(data_dir)
    prompts = [
        *read_harmful_requests(find),
        *harmless_forms(),
        *(Prompt(text, "harmless", "alarming") for text in alarming_prompts()),
        *_injections(find),
        *_tweets(find),
        *_instructions(find),
        *_questions_and_reviews(find),
    ]
    return list({prompt.text: prompt for prompt in prompts}.values())


def find_in(data_dir: Path) -> Callable[[str], Path]:
    """Return a function from the name of a file to its verified path in a folder."""

    def find(name: str) -> Path:
        path = data_dir / name
        if not path.is_file():
            raise UserError(
                f"{path} does not exist: put the file (sha256 {SHA256[name]}) there, or name "
                "another folder with --data_dir or DATA_DIR."
            )
        verify(path, f"sha256:{SHA256[name]}", "Replace it.")
        return path

    return find


def read_harmful_requests(find: Callable[[str], Path]) -> Iterator[Prompt]:
    """Yield the requests of AdvBench and HarmBench, a context after its request."""
    for row in _csv(find("advbench/harmful_behaviors.csv")):
        yield Prompt(row["target"], "harmful", "advbench")  # `goal` is the answer in this copy
    for row in _csv(find("safety/harmbench_behaviors_text_all.csv.gz")):
        kind, context = row["FunctionalCategory"], row["ContextString"]
        if kind != "copyright":
            source = "harmbench_contextual" if context else "harmbench"
            text = f"{row['Behavior']}\n\n{context}".strip()
            yield Prompt(text, "harmful", source)


def alarming_prompts() -> list[str]:
    """Return the harmless prompts with alarming words; every second one is never trained on."""
    return _prompts_file("alarming.txt").splitlines()


def _prompts_file(name: str) -> str:
    return files("safety").joinpath("prompts", name).read_text(encoding="utf-8")


def harmful_examples() -> list[Prompt]:
    """Return the harmful requests and injections that come with this project."""
    found = yaml.safe_load(_prompts_file("harmful.yaml"))
    return [Prompt(text, label, "examples") for label, texts in found.items() for text in texts]


def harmless_forms() -> Iterator[Prompt]:
    """Yield harmless requests in the forms of harmful ones."""
    for group in yaml.safe_load(_prompts_file("harmless.yaml")):
        for task in group["tasks"]:
            templates = _generator(task).sample(group["templates"], TEMPLATES_PER_TASK)
            for template in templates:
                yield Prompt(template.replace("{}", task), "harmless", "forms", key=task)


def _injections(find: Callable[[str], Path]) -> Iterator[Prompt]:
    for row in _json_lines(find("safety/deepset-prompt-injections-train.jsonl.gz")):
        yield Prompt(row["text"], "injection" if row["label"] else "harmless", "injections")


def _tweets(find: Callable[[str], Path]) -> Iterator[Prompt]:
    """Yield hate speech, and tweets that are neither hate speech nor offensive."""
    rows = list(_csv(find("safety/davidson-labeled_data.csv.gz")))
    for kind, label in (("0", "toxic"), ("2", "harmless")):
        texts = [row["tweet"] for row in rows if row["class"] == kind]
        yield from sample((Prompt(text, label, "davidson") for text in texts), SIZES["davidson"])


def _instructions(find: Callable[[str], Path]) -> Iterator[Prompt]:
    """Yield instructions, with their input if they have one."""
    rasbt = json.loads(read_utf8(find("instruction/rasbt-instruction-data.json.gz")))
    pairs = [(row["instruction"], row["input"]) for row in rasbt]
    for name in ("seed_tasks", "user_oriented"):
        for row in _json_lines(find(f"instruction/self-instruct-{name}.jsonl.gz")):
            pairs.append((row["instruction"], row["instances"][0]["input"]))
    texts = ("\n\n".join(filter(None, pair)) for pair in pairs)
    yield from sample(
        (Prompt(text, "harmless", "instructions") for text in texts), SIZES["instructions"]
    )


def _questions_and_reviews(find: Callable[[str], Path]) -> Iterator[Prompt]:
    paragraphs = read_squad(find("squad/train-part-44-articles.json.gz"))
    questions = (question.text for paragraph in paragraphs for question in paragraph.questions)
    yield from sample((Prompt(text, "harmless", "squad") for text in questions), SIZES["squad"])
    lines = read_utf8(find("sst2/sentiment-train.gz")).splitlines()
    reviews = (Prompt(line.rpartition("\t")[0].strip(), "harmless", "sst2") for line in lines)
    yield from sample(reviews, SIZES["sst2"])


def _csv(path: Path) -> Iterator[dict[str, str]]:
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in read_utf8(path).splitlines() if line.strip())


def sample(prompts: Iterable[Prompt], size: int) -> list[Prompt]:
    """Return up to `size` of the prompts, always the same."""
    return sorted(prompts, key=lambda prompt: _digest(prompt.text))[:size]


# Splits.


def make_tables(prompts: Sequence[Prompt], leave_out: str | None = None) -> dict[str, list[Prompt]]:
    """Return the rows of train, val and test.

    Args:
        prompts: The prompts of all sources.
        leave_out: A source whose rows are all in test.
    """
    alarming_test = set(alarming_prompts()[1::2])
    tables: dict[str, list[Prompt]] = {"train": [], "val": [], "test": []}
    for prompt in prompts:
        left_out = leave_out is not None and prompt.source.startswith(leave_out)
        split = "test" if left_out or prompt.text in alarming_test else split_of(prompt)
        if prompt.source == "alarming" and split == "test" and prompt.text not in alarming_test:
            split = "train"
        tables[split].append(prompt)
    for split in ("train", "val"):
        tables[split] += [new for prompt in tables[split] for new in _rewritten(prompt)]
    tables["test"] += _rewritten_test(tables["test"])
    return tables


def split_of(prompt: Prompt) -> str:
    """Return the split of a prompt whose source is not left out."""
    number = _digest(prompt.key or prompt.text) % 100
    return "test" if number < 20 else "val" if number < 35 else "train"


def _rewritten(prompt: Prompt) -> list[Prompt]:
    generator = _generator(prompt.text)
    rules = generator.sample(sorted(rules_of("train").items()), REWRITINGS.get(prompt.source, 0))
    return [
        prompt._replace(text=rule.rewrite(prompt.text, generator), rule=name)
        for name, rule in rules
    ]


def _rewritten_test(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Return the test prompts by every rule of test, as many harmless as harmful ones."""
    harmful = sample((p for p in prompts if p.label == "harmful"), REWRITTEN_TEST)
    harmless = sample((p for p in prompts if p.source in TESTED), len(harmful))
    return [
        prompt._replace(text=rule.rewrite(prompt.text, _generator(prompt.text)), rule=name)
        for name, rule in rules_of("test").items()
        for prompt in (*harmful, *harmless)
    ]


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _generator(text: str) -> random.Random:
    return random.Random(_digest(text))


def write_table(path: Path, rows: Sequence[Prompt]) -> None:
    """Write the columns text, label, source and rule."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Prompt._fields[:4])
        writer.writerows(row[:4] for row in rows)


if __name__ == "__main__":
    main()
