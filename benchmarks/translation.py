"""Speed of beam search: `python -m benchmarks.translation`.

Sentences a second that the Transformer of configs/multi30k/transformer.yaml translates with five
beams: all at once with its cache, all at once without (the whole text is read again for each word),
and one after the other with the cache. The weights are random, and every sentence of 16 tokens is
translated into as many, so that all do the same work. All take turns, and ratios are taken round by
round.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.trainer import rounds
from modules.beam_search import beam_search
from modules.nets import Seq2Seq, Transformer
from train import prepare_process

VOCAB, LENGTH, BEAMS = 5_000, 16, 5
BEGIN, END = 2, 3
NETS: dict[str, Callable[[], torch.nn.Module]] = {
    "Transformer": lambda: Transformer(
        VOCAB, VOCAB, True, dim=256, num_heads=4, num_layers=3, hidden_size=512, norm="before"
    ),
    "GRU, Luong": lambda: Seq2Seq(VOCAB, VOCAB, True, dim=256, hidden_size=256, attention="luong"),
}


def sentences_a_second(net: torch.nn.Module, sources: Tensor, at_once: int, cached: bool) -> float:
    """Of translating them all."""
    started = time.perf_counter()
    for some in sources.split(at_once):
        inputs = {"input_ids": some, "attention_mask": torch.ones_like(some, dtype=torch.bool)}
        found, _ = beam_search(
            net,  # type: ignore[arg-type]
            inputs,
            BEGIN,
            END,
            BEAMS,
            max_length=LENGTH,
            never=[END],
            cached=cached,
        )
        assert all(len(text) == LENGTH for text in found)
    return len(sources) / (time.perf_counter() - started)


def main() -> None:
    """Measure and print; `--write` also puts the table into a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.translation", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant")
    parser.add_argument("--sentences", type=int, default=64, help="sentences of a turn")
    parser.add_argument("--write", type=Path, help="a Markdown file for the table")
    options = parser.parse_args()
    prepare_process()
    lines = [
        "# Speed of beam search",
        "",
        f"`python -m benchmarks.translation`, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPU "
        f"cores ({platform.machine()}), {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}; sentences/s, {BEAMS} beams, {LENGTH} tokens each, "
        f"{options.sentences} sentences, medians of {options.rounds} rounds.",
        "",
        "| net | at once, cached | at once, not cached | one by one, cached | cached against not "
        "| at once against one by one |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(lines))
    size = options.sentences
    for name, make in NETS.items():
        torch.manual_seed(0)
        net = make().eval()
        sources = torch.randint(4, VOCAB, (options.sentences, LENGTH))
        contestants: dict[str, Callable[[], float]] = {
            "cached": lambda n=net, s=sources: sentences_a_second(n, s, size, True),  # type: ignore[misc]
            "not cached": lambda n=net, s=sources: sentences_a_second(n, s, size, False),  # type: ignore[misc]
            "one by one": lambda n=net, s=sources: sentences_a_second(n, s, 1, True),  # type: ignore[misc]
        }
        seen = rounds(contestants, options.rounds)
        speeds = [f"{statistics.median(values):,.1f}" for values in seen.values()]
        pairs = [zip(seen["cached"], seen[key], strict=True) for key in list(seen)[1:]]
        ratios = [f"{statistics.median(a / b for a, b in pair):.1f} x" for pair in pairs]
        lines.append(f"| {' | '.join([name, *speeds, *ratios])} |")
        print(lines[-1], flush=True)
    if options.write:
        options.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
