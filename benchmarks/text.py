"""Speed of length-bucketed batches: `python -m benchmarks.text`.

Tokens per second of training an LSTM classifier on SST-2, without padding, for three loaders: ours
(batches of texts of similar length, sliced from one token array); the loader of most tutorials
(random texts, padded to the longest of the batch); and the latter with PyTorch's packed sequences,
which exclude padding from the LSTM. Network, batch size and optimizer are equal; candidates
alternate, and ratios are taken round by round.

SST-2 from DATA_DIR if present, else random tokens with similar lengths.
"""

import statistics
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset

from benchmarks.table import Page, parser, ratio
from benchmarks.trainer import rounds
from datamodules import SST2
from datamodules.loading.length_batches import BucketBatchSampler
from datamodules.loading.loader import BatchLoader
from datamodules.loading.ragged import Inputs, LabeledTokens, RaggedTokens
from engine.errors import UserError
from engine.process import prepare_process
from modules.nets import TextRNN

BATCHES, WARM_UP = (64, 128), 3
VOCAB_SIZE = 14_000


class Items(Dataset[tuple[Tensor, int]]):
    """A map-style data set of single texts, as in most tutorials."""

    def __init__(self, texts: LabeledTokens) -> None:
        self.texts = [texts.texts[row] for row in range(len(texts))]
        self.labels = texts.labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.texts[row], self.labels[row]


def collate(items: list[tuple[Tensor, int]]) -> tuple[Inputs, Tensor]:
    """Pad a list of texts to the longest one."""
    lengths = torch.tensor([len(text) for text, _ in items])
    ids = pad_sequence([text for text, _ in items], batch_first=True)  # (B, T)
    mask = torch.arange(ids.shape[1]) < lengths[:, None]  # (B, T)
    return {"input_ids": ids, "attention_mask": mask}, torch.tensor([label for _, label in items])


class PackedRNN(nn.Module):
    """torch.nn.LSTM over a packed sequence, with a linear head on the last states."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, 128)
        self.lstm = nn.LSTM(128, 128, batch_first=True, bidirectional=True)
        self.head = nn.Linear(256, 2)

    def forward(self, inputs: Inputs) -> Tensor:
        lengths = inputs["attention_mask"].sum(dim=1)  # (B,)
        packed = pack_padded_sequence(
            self.embedding(inputs["input_ids"]), lengths, batch_first=True, enforce_sorted=False
        )
        outputs, (states, _) = self.lstm(packed)
        pad_packed_sequence(outputs, batch_first=True)
        return self.head(torch.cat([states[0], states[1]], dim=1))


def our_net() -> nn.Module:
    """Return the network of the other two candidates."""
    return TextRNN(2, VOCAB_SIZE, dim=128, hidden_size=128, dropout=0.0)


def tokens_per_second(
    net: nn.Module, batches: Iterable[tuple[Inputs, Tensor]], steps: int
) -> float:
    """Return the tokens per second of a training loop, loading included and padding excluded."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    started, tokens = 0.0, 0
    for step, (inputs, labels) in enumerate(batches):
        if step == WARM_UP:
            started = time.perf_counter()
        if step == WARM_UP + steps:
            break
        loss = F.cross_entropy(net(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tokens += int(inputs["attention_mask"].sum()) if step >= WARM_UP else 0
    return tokens / (time.perf_counter() - started)


def texts() -> tuple[str, LabeledTokens]:
    """Return the training phrases of SST-2, or random tokens with similar lengths."""
    try:
        data = SST2(context=64)
        data.setup("fit")
        return "SST-2", data.splits["train"]
    except UserError:
        draw = torch.Generator().manual_seed(0)
        uniform = torch.rand(67_349, generator=draw)
        lengths = (1 - 9 * uniform.clamp(min=1e-3).log()).long().clamp(max=50)  # geometric, 9.4
        rows = [torch.randint(2, VOCAB_SIZE, (n,), generator=draw) for n in lengths.tolist()]
        labels = torch.randint(2, (len(rows),), generator=draw)
        ragged = RaggedTokens.from_sequences([row.numpy() for row in rows])
        return "random texts", LabeledTokens(ragged, labels, 0)


def main() -> None:
    """Measure and print a table; `--write` also writes it to a file."""
    command = parser("text", __doc__, rounds=5)
    command.add_argument("--steps", type=int, default=100, help="training steps per measurement")
    options = command.parse_args()
    prepare_process()
    name, train = texts()
    items = Items(train)

    def bucketed(size: int) -> Iterable[tuple[Inputs, Tensor]]:
        return BatchLoader(train, batches=BucketBatchSampler(train.texts.lengths, size), seed=0)

    def one_by_one(size: int) -> Iterable[tuple[Inputs, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        return DataLoader(items, size, shuffle=True, collate_fn=collate, generator=generator)

    page = Page(
        "text",
        "Speed of text classification",
        f"{name}, bidirectional LSTM of 128, medians of {options.rounds} rounds.",
    )
    page.table(
        *("batch", "per item, padded", "per item, packed", "ours, bucketed"),
        *("relative to padded", "to packed"),
    )
    for size in BATCHES:
        candidates: dict[str, Callable[[], float]] = {
            "padded": lambda n=size: tokens_per_second(our_net(), one_by_one(n), options.steps),  # type: ignore[misc]
            "packed": lambda n=size: tokens_per_second(PackedRNN(), one_by_one(n), options.steps),  # type: ignore[misc]
            "ours": lambda n=size: tokens_per_second(our_net(), bucketed(n), options.steps),  # type: ignore[misc]
        }
        results = rounds(candidates, options.rounds)
        speeds = [f"{statistics.median(values):,.0f}" for values in results.values()]
        ratios = [f"{ratio(results['ours'], results[key]):.1f} x" for key in ("padded", "packed")]
        page.row(str(size), *speeds, *ratios)
    page.write(options.write)


if __name__ == "__main__":
    main()
