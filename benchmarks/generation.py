"""Speed of generation: `python -m benchmarks.generation`.

Tokens a second of 500 new ones with the 10 M shape (6 layers, 6 heads, 384 wide) in float32, from
one prompt and from ten: our `generate` with its cache and without, and `transformers`' `generate`
with its cache on the same weights. It can't go past its context, so there the context is 512; with
256, as in configs/shakespeare/gpt.yaml, ours starts afresh from half a window when one is full.
All take turns, and ratios are taken round by round.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import GPT2LMHeadModel

from benchmarks.trainer import rounds
from modules.generation import generate
from modules.nets import GPT
from modules.nets.gpt_huggingface import save_gpt2
from train import prepare_process

VOCAB = 65
NEW_TOKENS = 500


def ours(net: GPT, prompts: int, *, cached: bool) -> float:
    """Tokens a second of all prompts together."""
    started = time.perf_counter()
    steps = generate(net, [[0]] * prompts, NEW_TOKENS, seed=0, cached=cached)
    drawn = sum(len(step) for step in steps)
    return drawn / (time.perf_counter() - started)


def theirs(net: Any, prompts: int) -> float:
    """Tokens a second of `transformers`."""
    tokens = torch.zeros(prompts, 1, dtype=torch.long)
    torch.manual_seed(0)
    started = time.perf_counter()
    told = net.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        do_sample=True,
        top_k=0,
        min_new_tokens=NEW_TOKENS,
        max_new_tokens=NEW_TOKENS,
        pad_token_id=0,
    )
    assert told.shape == (prompts, 1 + NEW_TOKENS)
    return prompts * NEW_TOKENS / (time.perf_counter() - started)


def main() -> None:
    """Measure and print; `--write` also puts the table into a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generation", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant")
    parser.add_argument("--write", type=Path, help="a Markdown file for the table")
    options = parser.parse_args()
    prepare_process()
    lines = [
        "# Speed of generation",
        "",
        f"`python -m benchmarks.generation`, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPU "
        f"cores ({platform.machine()}), {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, transformers {transformers.__version__}; tokens/s, medians of "
        f"{options.rounds} rounds.",
        "",
        "| context, prompts | ours, cached | ours, not cached | transformers, cached | cached "
        "against not cached | ours against transformers |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for context in (256, 512):
        torch.manual_seed(0)
        net = GPT(VOCAB, context=context, num_layers=6, num_heads=6, dim=384).eval()
        with tempfile.TemporaryDirectory() as folder:
            save_gpt2(net, folder)
            copy = GPT2LMHeadModel.from_pretrained(folder).eval()
        for prompts in (1, 10):
            contestants: dict[str, Callable[[], float]] = {
                "cached": lambda net=net, n=prompts: ours(net, n, cached=True),  # type: ignore[misc]
            }
            if prompts == 1:  # ten would take minutes and say the same
                contestants["not cached"] = lambda net=net: ours(net, 1, cached=False)  # type: ignore[misc]
            if context > NEW_TOKENS:
                contestants["theirs"] = lambda copy=copy, n=prompts: theirs(copy, n)  # type: ignore[misc]
            seen = rounds(contestants, options.rounds)
            lines.append(_row(context, prompts, seen))
    print("\n".join(lines))
    if options.write:
        options.write.write_text("\n".join(lines) + "\n")


def _row(context: int, prompts: int, seen: dict[str, list[float]]) -> str:
    cells = [f"{context}, {prompts}"]
    for name in ("cached", "not cached", "theirs"):
        cells.append(f"{statistics.median(seen[name]):,.0f}" if name in seen else "—")
    for name in ("not cached", "theirs"):
        if name in seen:
            ratio = statistics.median(
                a / b for a, b in zip(seen["cached"], seen[name], strict=True)
            )
            cells.append(f"{ratio:.1f} x")
        else:
            cells.append("—")
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
