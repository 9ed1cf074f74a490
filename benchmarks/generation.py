"""Speed of generation: `python -m benchmarks.generation`.

Tokens a second of 500 new ones with the 10 M shape (6 layers, 6 heads, 384 wide) in float32, from
one prompt and from ten: our `generate` with its cache and without, the loop of nanoGPT and minGPT,
which reads the last window anew for each token, and `transformers`' `generate` with its cache, all
with the same weights. The last can't go past its context, so there the context is 512; with 256, as
in configs/shakespeare/gpt.yaml, ours starts afresh from half a window when one is full, and without
a cache reads less than a window for most tokens. Beside them ours with weights of 16 bits, as by
`generate.py --precision bf16-true`. All take turns, and ratios are taken round by round.
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
from modules.nets import GPT
from modules.nets.huggingface.gpt import save_gpt

VOCAB = 65
NEW_TOKENS = 500


def ours(net: GPT, prompts: int, *, cached: bool) -> float:
    """Tokens a second of all prompts together."""
    started = time.perf_counter()
    steps = generate(net, [[0]] * prompts, NEW_TOKENS, seed=0, cached=cached)
    drawn = sum(len(step) for step in steps)
    return drawn / (time.perf_counter() - started)


@torch.inference_mode()
def last_window(net: GPT) -> float:
    """Tokens a second of one prompt, as nanoGPT and minGPT sample them."""
    tokens = torch.zeros(1, 1, dtype=torch.long)
    torch.manual_seed(0)
    started = time.perf_counter()
    for _ in range(NEW_TOKENS):
        logits, _ = net(tokens[:, -net.context :])
        drawn = torch.multinomial(logits[:, -1].softmax(dim=-1), 1)  # (1, 1)
        tokens = torch.cat([tokens, drawn], dim=1)
    return NEW_TOKENS / (time.perf_counter() - started)


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
            contestants: dict[str, Callable[[], float]] = {
                "cached": lambda net=net, n=prompts: ours(net, n, cached=True),  # type: ignore[misc]
                "bf16": lambda net=halved, n=prompts: ours(net, n, cached=True),  # type: ignore[misc]
            }
            if prompts == 1:  # ten would take minutes and say the same
                contestants["not cached"] = lambda net=net: ours(net, 1, cached=False)  # type: ignore[misc]
                contestants["last window"] = lambda net=net: last_window(net)  # type: ignore[misc]
            if context > NEW_TOKENS:
                contestants["theirs"] = lambda net=same, n=prompts: theirs(net, n)  # type: ignore[misc]
            seen = rounds(contestants, options.rounds)
            page.row(f"{context}, {prompts}", *_cells(seen))
    page.write(options.write)


def _cells(seen: dict[str, list[float]]) -> list[str]:
    """What is told of a context and a number of prompts; not all was measured for each."""
    return [
        *(
            f"{statistics.median(seen[name]):,.0f}" if name in seen else "—"
            for name in ("cached", "not cached", "last window", "theirs", "bf16")
        ),
        *(
            f"{ratio(seen['cached'], seen[name]):.1f} x" if name in seen else "—"
            for name in ("not cached", "last window", "theirs")
        ),
    ]


if __name__ == "__main__":
    main()
