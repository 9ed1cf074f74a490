"""Speed of GPT training: `python -m benchmarks.language`, on a GPU where there is one.

Milliseconds per step, without biases as in nanoGPT. On a CPU with 12 sequences, for a small GPT (4
layers, 4 heads, 128 wide, context 64) and one of 10 M parameters (6, 6, 384, 256), with and without
dropout; on a GPU for the latter with 64 sequences, and for GPT-2's 124 M parameters (12, 12, 768,
1,024; 50,304 tokens) with 32. Candidates: a bare PyTorch loop in float32 (TF32 on a GPU) with SDPA
and torch's dropout; the same loop in the precision that `auto_precision` selects for the machine,
with our attention and dropout; `train.py fit` with that precision; and the same with
`--model.compile true`. On a GPU the compiled fit is compared with the bare loop compiled as a
whole, loss included. Candidates alternate, and ratios are taken round by round. MFU is the fraction
of the best matrix product measured in the same run; on a GPU also of the vendor's peak.
"""

import contextlib
import io
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modules.nets.gpt
from benchmarks.table import Page, parser, ratio
from benchmarks.timer import StepTimer, seconds_per_step, start
from benchmarks.trainer import rounds
from cli.main import main as train
from datamodules.language_modeling.token_shards import ShardWriter, write_index
from datamodules.text.encoding import token_dtype
from datamodules.text.tokenizers import add_end_of_text, character_tokenizer
from engine.precision import recommended_precision
from engine.process import prepare_process
from engine.run.flops import measured_peak_flops, specified_peak_flops, synchronized_time
from modules.nets import GPT


class Shape(NamedTuple):
    """A model size and the length of one measurement."""

    net: dict[str, Any]  # arguments of modules.nets.GPT, except vocabulary size and dropout
    rows: int  # sequences per step
    steps: int
    dropouts: tuple[float, ...] = (0.0, 0.2)
    tokens: int = 65  # vocabulary size


SMALL = {"num_layers": 4, "num_heads": 4, "dim": 128, "context": 64, "bias": False}
TEN = {"num_layers": 6, "num_heads": 6, "dim": 384, "context": 256, "bias": False}
GPT2 = {"num_layers": 12, "num_heads": 12, "dim": 768, "context": 1024, "bias": False}
SHAPES = {
    "cpu": {"small": Shape(SMALL, rows=12, steps=100), "10M": Shape(TEN, rows=12, steps=12)},
    "cuda": {
        "124M": Shape(GPT2, rows=32, steps=20, dropouts=(0.0,), tokens=50_304),
        "10M": Shape(TEN, rows=64, steps=100, dropouts=(0.2,)),
    },
}


def batches(shape: Shape) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield random tokens."""
    for _ in range(shape.steps):
        rows = torch.randint(shape.tokens, (shape.rows, shape.net["context"] + 1))
        yield rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def bare_loop(
    shape: Shape, dropout: float, device: str, *, recommended: bool, compiled: bool = False
) -> float:
    """Return the seconds per step of a bare PyTorch loop.

    Args:
        shape: What to train.
        dropout: Dropout probability.
        device: `cpu` or `cuda`.
        recommended: Use the recommended precision and our layers; otherwise float32, SDPA and
            torch's dropout.
        compiled: Compile network and loss together.
    """
    torch.compiler.reset()
    torch.manual_seed(0)
    ours = modules.nets.gpt.Dropout
    if not recommended:
        modules.nets.gpt.Dropout = nn.Dropout  # type: ignore[misc,assignment]
    try:
        attention = "auto" if recommended else "sdpa"
        net = GPT(shape.tokens, dropout=dropout, attention=attention, **shape.net).to(device)
    finally:
        modules.nets.gpt.Dropout = ours  # type: ignore[misc]
    half = recommended and recommended_precision(device)[0] == "bf16-mixed"
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.0, fused=True)

    def loss_of(tokens: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            logits, _ = net(tokens)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    if compiled:
        loss_of = torch.compile(loss_of)
    starts: list[float] = []
    for batch in batches(shape):
        starts.append(start(torch.device(device), len(starts)))
        tokens, targets = (part.to(device) for part in batch)
        loss = loss_of(tokens, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    starts.append(synchronized_time(torch.device(device)))
    return seconds_per_step(starts)


def fit(
    shape: Shape, dropout: float, device: str, data: Path, *more: str, compiled: bool = False
) -> float:
    """Return the seconds per step of `train.py fit` in the recommended precision, with flags."""
    torch.compiler.reset()  # otherwise the ninth network of the process would silently run eagerly
    with tempfile.TemporaryDirectory() as runs_dir, contextlib.redirect_stdout(io.StringIO()):
        net = shape.net | {"dropout": dropout, "positions": "learned"}
        train(
            [
                "fit",
                *("--config", "configs/shakespeare/gpt_small_cpu.yaml"),
                *("--runs_dir", runs_dir, "--data", "datamodules.TokenShards"),
                *("--data.folder", str(data), "--data.context", str(net.pop("context"))),
                *("--data.batch_size", str(shape.rows), "--model.lr_scheduler", "null"),
                *("--model.optimizer.weight_decay", "0.0", "--test_after_fit", "false"),
                *(f"--model.net.{name}={value}" for name, value in net.items()),
                *("--trainer.max_steps", str(shape.steps), "--trainer.limit_val_batches", "0"),
                *("--trainer.val_check_interval", "1.0", "--trainer.check_val_every_n_epoch", "1"),
                *("--trainer.gradient_clip_val", "null", "--trainer.accelerator", device),
                *("--trainer.devices", "1"),
                *("--checkpoint.monitor", "null", "--model.compile", str(compiled).lower()),
                "--trainer.callbacks+=benchmarks.timer.StepTimer",
                *more,
            ]
        )
    return StepTimer.last


def make_shards(shape: Shape, folder: Path) -> Path:
    """Write token shards with the vocabulary size of the shape."""
    ascii, rare = range(32, 127), range(0x10000, 0x20000)
    alphabet = "".join(map(chr, [*ascii, *rare][: shape.tokens - 1]))
    made, end = add_end_of_text(character_tokenizer(alphabet))
    shards = []
    tokens = np.arange(4 * shape.steps * shape.rows * shape.net["context"]) % shape.tokens
    for split in ("train", "val"):
        writer = ShardWriter(folder, split, np.dtype(token_dtype(made)), len(tokens))
        writer.write(tokens)
        writer.close()
        shards += writer.shards
    write_index(folder, made, end, shards, [{"name": "synthetic", "documents": 1}])
    return folder


def flops_per_step(shape: Shape) -> float:
    """Return the FLOPs of a step: per token 6 · weights + 12 · layers · width · context.

    Kaplan et al. 2020, appendix B; Chowdhery et al. 2022 (PaLM), appendix B.
    """
    net = GPT(shape.tokens, **shape.net)
    weights = sum(p.numel() for name, p in net.named_parameters() if "position" not in name)
    context = shape.net["context"]
    per_token = 6 * weights + 12 * shape.net["num_layers"] * shape.net["dim"] * context
    return float(per_token * shape.rows * context)


def main() -> None:
    """Measure and print a table; `--write` also writes it to a file."""
    options = parser("language", __doc__, rounds=5).parse_args()
    prepare_process()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision, _ = recommended_precision(device)
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    peaks = [measured_peak_flops(dtype, device)]
    description = f"best matrix product {peaks[0] / 1e12:,.2f} TFLOP/s"
    if named := specified_peak_flops(torch.device(device), dtype):
        peaks.append(named)
        description += f", vendor peak {named / 1e12:,.0f}"
    page = Page(
        "language",
        "Speed of GPT training",
        f"medians of {options.rounds} rounds. Recommended precision: {precision}; {description}.",
        L,
    )
    page.table(
        *("shape, rows, dropout", "bare, fp32", "bare, recommended", "`train.py fit`"),
        *("speed relative to bare, recommended", "to bare, fp32", "tokens/s", "MFU"),
        *("MFU of the vendor's peak",) * (len(peaks) - 1),
    )
    for name, shape in SHAPES[device].items():
        with tempfile.TemporaryDirectory() as folder:
            data = make_shards(shape, Path(folder))
            for dropout in shape.dropouts:
                label = f"{name}, {shape.rows}, {dropout}"
                for cells in measured(shape, dropout, device, data, options.rounds, peaks):
                    page.row(label, *cells)
                    label += ", compiled"
                page.write(options.write)  # keep finished measurements


def measured(
    shape: Shape, dropout: float, device: str, data: Path, number: int, peaks: list[float]
) -> Iterator[list[str]]:
    """Yield the cells of two rows: eager and compiled."""
    bare = partial(bare_loop, shape, dropout, device)
    ours = partial(fit, shape, dropout, device, data)
    candidates: dict[str, Callable[[], float]] = {
        "fp32": partial(bare, recommended=False),
        "bare": partial(bare, recommended=True),
        "fit": ours,
        "fit, compiled": partial(ours, compiled=True),
    }
    if device == "cuda":
        candidates["bare, compiled"] = partial(bare, recommended=True, compiled=True)
    results = rounds(candidates, number)
    for kind in ("", ", compiled"):
        baseline = f"bare{kind}" if f"bare{kind}" in results else "bare"
        columns = [results["fp32"], results[baseline], results[f"fit{kind}"]]
        seconds = statistics.median(columns[-1])
        yield [
            *(f"{1000 * statistics.median(column):.1f} ms" for column in columns),
            *(f"{ratio(column, columns[-1]):.2f} x" for column in (columns[1], columns[0])),
            f"{shape.rows * shape.net['context'] / seconds:,.0f}",
            *(f"{flops_per_step(shape) / seconds / peak:.0%}" for peak in peaks),
        ]


if __name__ == "__main__":
    main()
