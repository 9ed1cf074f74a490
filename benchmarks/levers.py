"""What each lever of training does to time, memory and loss of one and the same run.

    python -m benchmarks.levers --write docs/optimisation.md

Every candidate trains the same GPT from the same weights on the same rows, under the Trainer.
Time: the median of the steps after the first three. Peak: of PyTorch's allocator, in two more
steps. Loss: on the validation text after the last step, in float32.
"""

import argparse
import statistics
import warnings
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW
from torch.utils.data import DataLoader, Dataset

from benchmarks.memory.measured import AllocationPeak
from benchmarks.table import Page, parser
from benchmarks.timer import WARM_UP
from callbacks import ActivationCheckpointing
from datamodules import PythonSource
from datamodules.language_modeling.token_batches import RandomCrops
from engine.activation_checkpointing import Mode
from engine.lightning_internals import disable_empty_hooks
from engine.process import prepare_process
from engine.run.flops import synchronized_time
from modules import LanguageModel
from modules.nets import GPT

ROWS, CONTEXT, VOCAB_SIZE = 16, 128, 4096
SHAPE: dict[str, Any] = {"num_layers": 4, "num_heads": 4, "dim": 256}
MEMORY_STEPS = 2  # under the profiler
VAL_BATCHES = 8


@dataclass(frozen=True)
class Levers:
    """The levers of a run; the defaults are those that it is compared with."""

    fused: bool = False
    precision: Any = "32-true"
    compile: bool = False
    attention: str = "sdpa"
    accumulate: int = 1
    checkpointing: Mode | None = None
    loss_chunk_size: int | None = None
    data: Literal["batches", "rows"] = "batches"


CANDIDATES = {
    "none: float32, eager mode, SDPA, whole batches": Levers(),
    "data loaded row by row": Levers(data="rows"),
    "eager attention": Levers(attention="eager"),
    "fused AdamW": Levers(fused=True),
    "compiled": Levers(compile=True),
    "bfloat16": Levers(precision="bf16-mixed"),
    "bfloat16, eager attention": Levers(precision="bf16-mixed", attention="eager"),
    "gradient accumulation, 4 batches of 4 rows": Levers(accumulate=4),
    "activation checkpointing, full": Levers(checkpointing="full"),
    "activation checkpointing, selective": Levers(checkpointing="selective"),
    "loss in chunks of 256 tokens": Levers(loss_chunk_size=256),
    "full checkpointing, loss in chunks": Levers(checkpointing="full", loss_chunk_size=256),
    "bfloat16, eager attention, compiled, fused AdamW": Levers(
        fused=True, precision="bf16-mixed", compile=True, attention="eager"
    ),
}
READING = """
Each row changes what its name says and nothing else. "Relative" is to the first row: below 1 is
faster, or needs less memory. A step is one optimizer step on the same {tokens:,} tokens.

- The loss shows what a lever computes. Row-by-row data, eager attention, the fused optimizer,
  accumulation, checkpointing and the loss in chunks change the order of sums only, hence the last
  digits; bfloat16 rounds the factors of each product to 8 bits, which after so few steps moves the
  loss by a few hundredths in either direction.
- Memory is for {rows} rows. Accumulation and checkpointing pay where the rows do not fit otherwise,
  the loss in chunks with a large vocabulary ({vocab_size:,} here, 50,257 in GPT-2).
- bfloat16 pays on hardware that multiplies it (GPUs, AMX, AVX512_BF16), which the first paragraph
  names. Compilation takes seconds or minutes before the first step, which are not counted.
- Loading data row by row costs little beside a Transformer's step, but most of the time of a small
  network ([speed.md](speed.md)).

Each lever is an argument or an overlay: `--config configs/trainer/bf16.yaml`,
`activation_checkpointing.yaml` and `gradient_accumulation.yaml`, `--model.compile true`,
`--model.loss_chunk_size 256`, `--model.net.attention eager`, `--model.optimizer.fused true`. What
to do when a network does not fit one device is in [scaling.md](scaling.md).
"""


class Parts(Dataset[tuple[Tensor, Tensor]]):
    """Batches of fewer rows: every batch of `crops` in equal parts."""

    def __init__(self, crops: RandomCrops, parts: int) -> None:
        self.crops = crops
        self.parts = parts

    def __len__(self) -> int:
        return len(self.crops) * self.parts

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        step, part = divmod(index, self.parts)
        inputs, targets = (tensor.chunk(self.parts)[part] for tensor in self.crops[step])
        return inputs, targets


class Rows(Dataset[tuple[Tensor, Tensor]]):
    """The same rows one by one, as a dataset without whole batches has them."""

    def __init__(self, crops: RandomCrops, steps: int) -> None:
        self.crops = crops
        end = len(crops.tokens) - crops.context
        self.starts = np.concatenate(
            [
                np.random.default_rng((crops.seed, step)).integers(end, size=crops.batch_size)
                for step in range(steps)
            ]
        )

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        start = int(self.starts[index])
        tokens = torch.from_numpy(
            self.crops.tokens[start : start + self.crops.context + 1].astype(np.int64)
        )
        return tokens[:-1], tokens[1:]


class Recorder(L.Callback):
    """Record the time of each optimizer step and the peak of memory in the last ones.

    Args:
        steps: Optimizer steps before those whose memory is recorded.
        accumulate: Batches per optimizer step.
    """

    def __init__(self, steps: int, accumulate: int) -> None:
        self.steps = steps
        self.accumulate = accumulate
        self.starts: list[float] = []
        self.peak = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step, part = divmod(batch_idx, self.accumulate)
        if part == 0 and step <= self.steps:
            self.starts.append(synchronized_time(pl_module.device))
        if (step, part) == (self.steps, 0):
            self._begin(trainer, pl_module)

    def _begin(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if task.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(task.device)
            return
        weights = list(task.parameters())
        (optimizer,) = trainer.optimizers
        state = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        self._before = sum(t.numel() * t.element_size() for t in (*weights, *gradients, *state))
        self._allocated = AllocationPeak().__enter__()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if pl_module.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(pl_module.device)
        else:
            self._allocated.__exit__()
            self.peak = self._before + self._allocated.bytes

    @property
    def seconds(self) -> float:
        """Seconds per optimizer step."""
        counted = self.starts[WARM_UP:]
        return statistics.median(b - a for a, b in pairwise(counted))


def load_data() -> PythonSource:
    """Return the text in subwords."""
    data = PythonSource(
        context=CONTEXT, batch_size=ROWS, tokenizer="bpe", bpe_vocab_size=VOCAB_SIZE
    )
    data.setup("fit")
    return data


def train_loader(data: PythonSource, levers: Levers, steps: int) -> DataLoader:
    """Return the loader of the training data."""
    crops = RandomCrops(data.train_tokens, data.context, data.batch_size, data.seed)
    if levers.data == "rows":
        return DataLoader(Rows(crops, steps), batch_size=data.batch_size)
    return DataLoader(Parts(crops, levers.accumulate), batch_size=None)


def build_trainer(levers: Levers, *callbacks: L.Callback, max_steps: int = -1) -> L.Trainer:
    trainer = L.Trainer(
        devices=1,
        precision=levers.precision,
        max_steps=max_steps,
        accumulate_grad_batches=levers.accumulate,
        limit_val_batches=VAL_BATCHES,
        val_check_interval=None,
        check_val_every_n_epoch=None,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    disable_empty_hooks(trainer.callbacks)  # type: ignore[attr-defined]
    return trainer


def measure(data: PythonSource, levers: Levers, steps: int) -> tuple[float, int, float]:
    """Train, and return seconds per optimizer step, peak bytes and validation loss."""
    L.seed_everything(0, verbose=False)
    net = GPT(data.vocab_size, data.context, attention=levers.attention, **SHAPE)
    optimizer = partial(AdamW, lr=0.001, fused=levers.fused)
    task = LanguageModel(
        net, optimizer, compile=levers.compile, loss_chunk_size=levers.loss_chunk_size
    )
    recorder = Recorder(steps, levers.accumulate)
    more = [ActivationCheckpointing(levers.checkpointing)] if levers.checkpointing else []
    total = steps + MEMORY_STEPS
    trainer = build_trainer(levers, recorder, *more, max_steps=total)
    trainer.fit(task, train_loader(data, levers, total))
    (results,) = build_trainer(Levers()).validate(task, data.val_dataloader(), verbose=False)
    return recorder.seconds, recorder.peak, results["val/loss"]


def build_parser() -> argparse.ArgumentParser:
    result = parser("levers", (__doc__ or "").splitlines()[0])
    result.add_argument("--steps", type=int, default=20, help="optimizer steps of each candidate")
    return result


def main(args: list[str] | None = None) -> None:
    """Run the command line."""
    options = build_parser().parse_args(args)
    if options.steps < WARM_UP + 2:
        raise SystemExit(f"--steps must be at least {WARM_UP + 2}, got {options.steps}.")
    prepare_process()
    warnings.simplefilter("ignore")
    data = load_data()
    shape = ", ".join(f"{name} {value}" for name, value in SHAPE.items())
    page = Page(
        "levers",
        "What each lever of training does",
        f"GPT ({shape}, context {CONTEXT}, vocabulary {data.vocab_size:,}) on Python source "
        f"code, {ROWS} rows per step, {options.steps + MEMORY_STEPS} steps.",
        L,
    )
    page.text(
        READING.format(tokens=ROWS * CONTEXT, rows=ROWS, vocab_size=data.vocab_size).strip("\n")
    )
    page.table("lever", "ms per step", "relative", "peak, MiB", "relative", "validation loss")
    first: tuple[float, int] | None = None
    for name, levers in CANDIDATES.items():
        seconds, peak, loss = measure(data, levers, options.steps)
        first = first or (seconds, peak)
        page.row(
            *(name, f"{1000 * seconds:.0f}", f"{seconds / first[0]:.2f}"),
            *(f"{peak / 2**20:.0f}", f"{peak / first[1]:.2f}", f"{loss:.4f}"),
        )
    page.write(options.write)


if __name__ == "__main__":
    main()
