"""Speed of GPT training: `python -m benchmarks.language`.

Milliseconds a step of 12 sequences, for a small GPT (4 layers, 4 heads, 128 wide, context 64) and
one of 10 M parameters (6, 6, 384, 256), without biases as in nanoGPT's recipes, with and without
dropout: a bare PyTorch loop in float32 with SDPA and torch's dropout; the same loop in the
precision that `auto_precision` chooses for the machine, with our attention and dropout; `train.py
fit` with that precision; and the same with `--model.compile true`, as configs/shakespeare/gpt.yaml
recommends it for the larger one. All take turns, and ratios are taken round by round. MFU is the
share of the machine's own best matrix product, measured in the same run.
"""

import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modules.nets.gpt
from benchmarks.table import Page, parser, ratio
from benchmarks.timer import StepTimer, seconds_a_step
from benchmarks.trainer import rounds
from callbacks.speed import matmul_peak
from modules.nets import GPT
from precision import recommended_precision
from train import main as train
from train import prepare_process

ROWS = 12
VOCAB = 65
SHAPES = {
    "small": {"num_layers": 4, "num_heads": 4, "dim": 128, "context": 64, "bias": False},
    "10M": {"num_layers": 6, "num_heads": 6, "dim": 384, "context": 256, "bias": False},
}
STEPS = {"small": 100, "10M": 12}


def batches(context: int, number: int) -> list[tuple[Tensor, Tensor]]:
    """Random tokens: speed does not depend on what they say."""
    tokens = torch.randint(VOCAB, (number, ROWS, context + 1))
    return [(row[:, :-1].contiguous(), row[:, 1:].contiguous()) for row in tokens]


def bare_loop(shape: str, dropout: float, *, recommended: bool) -> float:
    """Seconds a step of a loop that anyone would write.

    Args:
        shape: Name of the shape.
        dropout: Probability of dropping.
        recommended: Use the machine's precision and our net as it is; otherwise float32, PyTorch's
            fused attention and its own dropout.
    """
    torch.manual_seed(0)
    ours = modules.nets.gpt.Dropout
    if not recommended:
        modules.nets.gpt.Dropout = nn.Dropout  # type: ignore[misc,assignment]
    try:
        attention = "auto" if recommended else "sdpa"
        net = GPT(VOCAB, dropout=dropout, attention=attention, **SHAPES[shape])  # type: ignore[arg-type]
    finally:
        modules.nets.gpt.Dropout = ours  # type: ignore[misc]
    half = recommended and recommended_precision("cpu")[0] == "bf16-mixed"
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    starts = []
    for tokens, targets in batches(SHAPES[shape]["context"], STEPS[shape]):
        starts.append(time.perf_counter())
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits, _ = net(tokens)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return seconds_a_step(starts)


def fit(shape: str, dropout: float, text: Path, *more: str, compiled: bool = False) -> float:
    """Seconds a step of `train.py fit` with the precision it chooses, and with more flags."""
    torch.compiler.reset()  # else the ninth net of the process would silently run as it is
    with tempfile.TemporaryDirectory() as runs_dir, contextlib.redirect_stdout(io.StringIO()):
        net = SHAPES[shape] | {"dropout": dropout, "positions": "learned"}
        train(
            [
                "fit",
                *("--config", "configs/shakespeare/gpt_small_cpu.yaml"),
                *("--runs_dir", runs_dir, "--data", "datamodules.TextFile"),
                *("--data.files", f"['{text}']", "--data.context", str(net.pop("context"))),
                *("--data.batch_size", str(ROWS), "--model.lr_scheduler", "null"),
                *("--model.optimizer.weight_decay", "0.0", "--test_after_fit", "false"),
                *(f"--model.net.{name}={value}" for name, value in net.items()),
                *("--trainer.max_steps", str(STEPS[shape]), "--trainer.limit_val_batches", "0"),
                *("--trainer.val_check_interval", "1.0", "--trainer.check_val_every_n_epoch", "1"),
                *("--trainer.gradient_clip_val", "null", "--trainer.accelerator", "cpu"),
                *("--checkpoint.monitor", "null", "--model.compile", str(compiled).lower()),
                "--trainer.callbacks+=benchmarks.timer.StepTimer",
                *more,
            ]
        )
    return StepTimer.last


def flops_a_step(shape: str) -> float:
    """Forward and backward: a token costs 6 a weight, and 12 · layers · width · context.

    Kaplan et al. 2020, appendix B; Chowdhery et al. 2022 (PaLM), appendix B.
    """
    size = SHAPES[shape]
    net = GPT(VOCAB, **size)  # type: ignore[arg-type]
    weights = sum(p.numel() for name, p in net.named_parameters() if "position" not in name)
    a_token = 6 * weights + 12 * size["num_layers"] * size["dim"] * size["context"]
    return float(a_token * ROWS * size["context"])


def main() -> None:
    """Measure and print; `--write` also puts the table into a file."""
    options = parser("language", __doc__, rounds=5).parse_args()
    prepare_process()
    precision, _ = recommended_precision("cpu")
    peak = matmul_peak(torch.bfloat16 if precision == "bf16-mixed" else torch.float32)
    page = Page(
        "language",
        "Speed of GPT training",
        f"{ROWS} sequences a step, medians of {options.rounds} rounds. Recommended precision: "
        f"{precision}; best matrix product {peak / 1e12:.2f} TFLOP/s.",
        L,
    )
    page.table(
        *("shape, dropout", "bare, fp32", "bare, recommended", "`train.py fit`"),
        *("its speed against bare, recommended", "against bare, fp32", "tokens/s", "MFU"),
    )
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text("".join(chr(32 + i % VOCAB) for i in range(100_000)))
        for shape in SHAPES:
            for dropout in (0.0, 0.2):
                contestants: dict[str, Callable[[], float]] = {
                    "fp32": lambda s=shape, d=dropout: bare_loop(s, d, recommended=False),  # type: ignore[misc]
                    "bare": lambda s=shape, d=dropout: bare_loop(s, d, recommended=True),  # type: ignore[misc]
                    "fit": lambda s=shape, d=dropout: fit(s, d, text),  # type: ignore[misc]
                    "compiled": lambda s=shape, d=dropout: fit(s, d, text, compiled=True),  # type: ignore[misc]
                }
                seen = rounds(contestants, options.rounds)
                for ours in ("fit", "compiled"):
                    page.row(*_cells(shape, dropout, ours, seen, peak))
    page.write(options.write)


def _cells(
    shape: str, dropout: float, ours: str, seen: dict[str, list[float]], peak: float
) -> list[str]:
    middle = {name: statistics.median(values) for name, values in seen.items()}
    return [
        f"{shape}, {dropout}{', compiled' if ours == 'compiled' else ''}",
        *(f"{1000 * middle[name]:.1f} ms" for name in ("fp32", "bare", ours)),
        *(f"{ratio(seen[name], seen[ours]):.2f} x" for name in ("bare", "fp32")),
        f"{ROWS * SHAPES[shape]['context'] / middle[ours]:,.0f}",
        f"{flops_a_step(shape) / middle[ours] / peak:.0%}",
    ]


if __name__ == "__main__":
    main()
