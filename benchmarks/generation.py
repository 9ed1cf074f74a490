"""Speed of generation: `python -m benchmarks.generation`.

Tokens per second for 500 new tokens with a GPT of 10 M parameters (6 layers, 6 heads, 384 wide) in
float32, for one prompt and for ten: our `generate` with and without its cache, the loop of nanoGPT
and minGPT, which recomputes the last window for each token, and `transformers`' `generate` with its
cache, all with the same weights. `transformers` cannot exceed the context, so it is measured with
context 512 only; with 256, as in configs/shakespeare/gpt.yaml, our cache restarts from half a
window when it is full. Also ours with bfloat16 weights, as by `generate.py --precision bf16-true`.
Candidates alternate, and ratios are taken round by round.
"""

import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers import GPT2LMHeadModel

from benchmarks.table import Page, parser, ratio
from benchmarks.trainer import rounds
from engine.process import prepare_process
from modules.inference.generation import generate
from modules.inference.sampling import Sampling
from modules.nets import GPT
from modules.nets.huggingface.gpt import save_gpt

VOCAB = 65
NEW_TOKENS = 500


def ours(net: GPT, prompts: int, *, cached: bool) -> float:
    """Return the tokens per second of all prompts together."""
    started = time.perf_counter()
    steps = generate(net, [[0]] * prompts, NEW_TOKENS, Sampling(seed=0), cached)
    drawn = sum(len(step) for step in steps)
    return drawn / (time.perf_counter() - started)


@torch.inference_mode()
def last_window(net: GPT) -> float:
    """Return the tokens per second of one prompt with the sampling loop of nanoGPT and minGPT."""
    tokens = torch.zeros(1, 1, dtype=torch.long)
    torch.manual_seed(0)
    started = time.perf_counter()
    for _ in range(NEW_TOKENS):
        logits, _ = net(tokens[:, -net.context :])
        drawn = torch.multinomial(logits[:, -1].softmax(dim=-1), 1)  # (1, 1)
        tokens = torch.cat([tokens, drawn], dim=1)
    return NEW_TOKENS / (time.perf_counter() - started)


def theirs(net: Any, prompts: int) -> float:
    """Return the tokens per second of `transformers`."""
    tokens = torch.zeros(prompts, 1, dtype=torch.long)
    torch.manual_seed(0)
    started = time.perf_counter()
    output = net.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        do_sample=True,
        top_k=0,
        min_new_tokens=NEW_TOKENS,
        max_new_tokens=NEW_TOKENS,
        pad_token_id=0,
    )
    assert output.shape == (prompts, 1 + NEW_TOKENS)
    return prompts * NEW_TOKENS / (time.perf_counter() - started)


def main() -> None:
    """Measure and print a table; `--write` also writes it to a file."""
    options = parser("generation", __doc__, rounds=3).parse_args()
    prepare_process()
    page = Page(
        "generation",
        "Speed of generation",
        f"tokens/s, medians of {options.rounds} rounds.",
        transformers,
    )
    page.table(
        *("context, prompts", "ours, cached", "not cached", "last window", "transformers, cached"),
        "ours, cached, bf16-true",
        *("against not cached", "against last window", "against transformers"),
    )
    for context in (256, 512):
        torch.manual_seed(0)
        net = GPT(VOCAB, context=context, num_layers=6, num_heads=6, dim=384).eval()
        halved = copy.deepcopy(net).bfloat16()
        with tempfile.TemporaryDirectory() as folder:
            save_gpt(net, folder)
            same = GPT2LMHeadModel.from_pretrained(folder).eval()
        for prompts in (1, 10):
            candidates: dict[str, Callable[[], float]] = {
                "cached": lambda net=net, n=prompts: ours(net, n, cached=True),  # type: ignore[misc]
                "bf16": lambda net=halved, n=prompts: ours(net, n, cached=True),  # type: ignore[misc]
            }
            if prompts == 1:  # ten prompts would take minutes
                candidates["not cached"] = lambda net=net: ours(net, 1, cached=False)  # type: ignore[misc]
                candidates["last window"] = lambda net=net: last_window(net)  # type: ignore[misc]
            if context > NEW_TOKENS:
                candidates["theirs"] = lambda net=same, n=prompts: theirs(net, n)  # type: ignore[misc]
            results = rounds(candidates, options.rounds)
            page.row(f"{context}, {prompts}", *_cells(results))
    page.write(options.write)


def _cells(results: dict[str, list[float]]) -> list[str]:
    """Return the cells of a row, with a dash for what was not measured."""
    return [
        *(
            f"{statistics.median(results[name]):,.0f}" if name in results else "—"
            for name in ("cached", "not cached", "last window", "theirs", "bf16")
        ),
        *(
            f"{ratio(results['cached'], results[name]):.1f} x" if name in results else "—"
            for name in ("not cached", "last window", "theirs")
        ),
    ]


if __name__ == "__main__":
    main()
