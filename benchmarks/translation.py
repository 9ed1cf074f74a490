"""Speed of beam search: `python -m benchmarks.translation`.

Sentences a second that the Transformer of configs/multi30k/transformer.yaml translates with five
beams: all at once with its cache, all at once without (the whole text is read again for each word),
and one after the other with the cache. The weights are random, and every sentence of 16 tokens is
translated into as many, so that all do the same work. All take turns, and ratios are taken round by
round.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.table import Page, parser, ratio
from benchmarks.trainer import rounds
from engine.process import prepare_process
from modules.inference.beam_search import beam_search
from modules.nets import Seq2Seq, Transformer

VOCAB, LENGTH, BEAMS = 5_000, 16, 5
BEGIN, END = 2, 3
NETS: dict[str, Callable[[], torch.nn.Module]] = {
    "Transformer": lambda: Transformer(
        VOCAB, VOCAB, True, dim=256, num_heads=4, num_layers=3, hidden_size=512, norm="pre"
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
    command = parser("translation", __doc__, rounds=3)
    command.add_argument("--sentences", type=int, default=64, help="sentences of a turn")
    options = command.parse_args()
    prepare_process()
    page = Page(
        "translation",
        "Speed of beam search",
        f"sentences/s, {BEAMS} beams, {LENGTH} tokens each, {options.sentences} sentences, medians "
        f"of {options.rounds} rounds.",
    )
    page.table(
        *("net", "at once, cached", "at once, not cached", "one by one, cached"),
        *("cached against not", "at once against one by one"),
    )
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
        ratios = [f"{ratio(seen['cached'], seen[key]):.1f} x" for key in list(seen)[1:]]
        page.row(name, *speeds, *ratios)
    page.write(options.write)


if __name__ == "__main__":
    main()
