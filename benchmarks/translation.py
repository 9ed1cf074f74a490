"""Speed of beam search: `python -m benchmarks.translation`.

Sentences per second translated with five beams by networks of the size of
configs/multi30k/transformer.yaml: in one batch with the cache, in one batch without (the prefix is
recomputed for each token), and one by one with the cache. The weights are random, and every
sentence of 16 tokens has a translation of 16 tokens, so that the work is equal. Candidates
alternate, and ratios are taken round by round.
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


def sentences_per_second(
    net: torch.nn.Module, sources: Tensor, batch_size: int, cached: bool
) -> float:
    """Return the sentences per second."""
    started = time.perf_counter()
    for batch in sources.split(batch_size):
        inputs = {"input_ids": batch, "attention_mask": torch.ones_like(batch, dtype=torch.bool)}
        found, _ = beam_search(
            net,  # type: ignore[arg-type]
            inputs,
            BEGIN,
            END,
            BEAMS,
            max_length=LENGTH,
            exclude=[END],
            cached=cached,
        )
        assert all(len(text) == LENGTH for text in found)
    return len(sources) / (time.perf_counter() - started)


def main() -> None:
    """Measure and print a table; `--write` also writes it to a file."""
    command = parser("translation", __doc__, rounds=3)
    command.add_argument("--sentences", type=int, default=64, help="sentences per measurement")
    options = command.parse_args()
    prepare_process()
    page = Page(
        "translation",
        "Speed of beam search",
        f"sentences/s, {BEAMS} beams, {LENGTH} tokens each, {options.sentences} sentences, medians "
        f"of {options.rounds} rounds.",
    )
    page.table(
        *("net", "one batch, cached", "one batch, not cached", "one by one, cached"),
        *("cached / not cached", "one batch / one by one"),
    )
    size = options.sentences
    for name, make in NETS.items():
        torch.manual_seed(0)
        net = make().eval()
        sources = torch.randint(4, VOCAB, (options.sentences, LENGTH))
        candidates: dict[str, Callable[[], float]] = {
            "cached": lambda n=net, s=sources: sentences_per_second(n, s, size, True),  # type: ignore[misc]
            "not cached": lambda n=net, s=sources: sentences_per_second(n, s, size, False),  # type: ignore[misc]
            "one by one": lambda n=net, s=sources: sentences_per_second(n, s, 1, True),  # type: ignore[misc]
        }
        results = rounds(candidates, options.rounds)
        speeds = [f"{statistics.median(values):,.1f}" for values in results.values()]
        ratios = [f"{ratio(results['cached'], results[key]):.1f} x" for key in list(results)[1:]]
        page.row(name, *speeds, *ratios)
    page.write(options.write)


if __name__ == "__main__":
    main()
