"""Run all experiments of several processes in one start, because starting is slow.

`start(2, folder)` starts two processes in a folder. They write run folders, error messages to
`messages-2.json`, weights to `padded-2.pt`, and to `joined-2-0.json` whether rank 0 still had a
process group at exit.
"""

import atexit
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from torch.utils.data import DataLoader

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT)]  # this file is also run as a program

from datamodules import Digits  # noqa: E402
from datamodules.classification.base import (  # noqa: E402
    LabeledTexts,
    TextClassificationDataModule,
)

TINY_BERT = {
    "model_type": "bert",
    "vocab_size": 300,
    "max_position_embeddings": 32,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
TINY_GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 300,
    "n_positions": 16,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
}
QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu")
GPT = (
    *(
        "--config",
        ROOT / "configs/source/gpt.yaml",
        "--config",
        ROOT / "configs/size/gpt-nano.yaml",
    ),
    *("--model.net.num_heads", 4, "--model.net.dropout", 0.0, "--model.optimizer.lr", 0.01),
    *("--model.net.positions", "learned", "--model.net.norm", "layer", "--model.net.bias", "true"),
    *("--model.net.activation", "gelu", "--model.net.tie_embeddings", "true"),
    *("--data.context", 16, "--data.batch_size", 8, "--trainer.limit_val_batches", 3),
    *("--model.lr_scheduler.total_steps", 12),  # some tests resume for longer than the 8 steps
    *(
        "--trainer.log_every_n_steps",
        1,
        "--trainer.max_steps",
        8,
        "--trainer.val_check_interval",
        4,
    ),
    *("--trainer.precision", "32-true", "--model.lr_scheduler.warmup_steps", 2),
    *("--trainer.gradient_clip_val", 0.5, "--checkpoint.every_n_steps", 2),
    *("--trainer.callbacks", "null", *QUIET),
)
MODERN = (
    *("--model.net.positions", "rotary", "--model.net.norm", "rms", "--model.net.bias", "false"),
    *("--model.net.activation", "swiglu", "--model.net.num_kv_heads", 2),
    *("--model.net.tie_embeddings", "false"),
)
LSTM = ("--model.net", "modules.nets.RNNLM", "--model.net.dim", 16)
MUON = (*("--config", ROOT / "configs/optimizer/muon.yaml", "--model.optimizer.lr", 0.01),)
BF16 = ("--trainer.precision", "bf16-mixed")
ACCUMULATED = (
    *("--trainer.accumulate_grad_batches", 2, "--trainer.val_check_interval", 8),
    *("--trainer.limit_train_batches", 16),
)
IMAGES = (
    *(
        "--config",
        ROOT / "tests/configs/digits/tiny.yaml",
        "--data",
        "tests.support.many_devices.OddDigits",
    ),
    *("--data.batch_size", 24),
    *("--model.net.conv_dropout", 0, "--model.net.dropout", 0, "--trainer.limit_train_batches", 8),
    *("--trainer.log_every_n_steps", 1, *QUIET),
)
BATCH_NORM = (*IMAGES, "--model.net.batch_norm", "true")

WORDS = (
    *("--config", ROOT / "configs/source/skip_gram.yaml", "--data.text", ROOT / "README.md"),
    *("--data.min_count", 2, "--data.val_fraction", 0.1, "--data.batch_size", 200),
    *("--model.net.dim", 8, "--trainer.max_epochs", 2, "--trainer.log_every_n_steps", 1),
    *("--trainer.callbacks", "null", *QUIET),
)
COUNTS = (
    *(*WORDS, "--data", "datamodules.Cooccurrences", "--data.window", 5),
    *("--model.net", "modules.nets.GloVe", "--model.loss", "weighted_squares"),
)
MASKED = (
    *("--config", ROOT / "configs/source/bert.yaml", "--data", "datamodules.PackedFiles"),
    *("--data.files", f"['{ROOT / 'README.md'}']", "--data.context", 32, "--data.batch_size", 6),
    *("--data.max_vocab_size", 300, "--model.net.dim", 16, "--trainer.limit_train_batches", 6),
    *("--trainer.max_epochs", 2, "--trainer.precision", "32-true"),
    *("--trainer.log_every_n_steps", 1, "--trainer.callbacks", "null", *QUIET),
)
TRANSLATED = (
    *("--config", ROOT / "configs/toy/reversed_words.yaml", "--data.sizes", "[200,31,31]"),
    *("--data.batch_size", 24, "--model.net.dim", 16, "--trainer.max_epochs", 2),
    *("--model.optimizer.lr", 0.0005),  # no loss depends on the bias of keys
    *("--trainer.log_every_n_steps", 1, "--trainer.callbacks", "null", *QUIET),
)

PRETRAINED = (
    *("--model", "modules.Classifier", "--model.net", "modules.nets.PretrainedClassifier"),
    *("--model.net.config", json.dumps(TINY_BERT)),
    *("--model.net.dropout", 0.0, "--model.optimizer", "modules.optim.LayerDecayAdamW"),
    *("--model.optimizer.lr", 0.005, "--model.lr_scheduler", "modules.optim.WarmupLinear"),
    *("--data", "tests.support.many_devices.Lines", "--data.context", 32),
    *("--data.batch_size", 8, "--data.max_vocab_size", 300, "--trainer.limit_train_batches", 8),
    *("--trainer.max_epochs", 2, "--trainer.log_every_n_steps", 1),
    *("--trainer.gradient_clip_val", 0.5, *QUIET),
)
CAUSAL = (
    *(*GPT, "--model.net", "modules.nets.PretrainedCausalLM", "--model.net.config"),
    *(json.dumps(TINY_GPT2), "--model.net.dropout", 0.0),
)

TWO = ("--trainer.devices", 2)
DDP = (*TWO, "--config", ROOT / "configs/trainer/ddp.yaml")
FSDP = (*TWO, "--config", ROOT / "configs/trainer/fsdp.yaml")
OFFLOAD = (*TWO, "--config", ROOT / "configs/trainer/fsdp_offload.yaml")
TP = (*TWO, "--config", ROOT / "configs/trainer/tensor_parallel.yaml")
MESH = (*TP, "--trainer.devices", 4, "--trainer.strategy.tensor_parallel_size", 2)
FOLDER = ("--trainer.strategy.save_distributed_checkpoint", "true")
CRASH = (
    "--trainer.callbacks+=tests.support.resume.CrashAfter",
    "--trainer.callbacks.batches=5",
)
AUTO = ("--resume", "auto")
LORA = ("--config", ROOT / "configs/adapter/lora.yaml", "--model.adapter.dropout", 0)
RECOMPUTED = (
    *(*GPT, "--model.loss_chunk_size", 12),
    "--trainer.callbacks=[callbacks.ActivationCheckpointing]",
)
ADAPTED = (*GPT, *LORA, "--init_from", "runs/gpt/001/checkpoints/best.ckpt")
EXPERIMENTS = {"gpt": GPT, "modern": (*GPT, *MODERN), "lstm": (*GPT, *LSTM)} | {
    "accumulated": (*GPT, *ACCUMULATED),
    "bf16": (*GPT, *BF16),
    "muon": (*GPT, *MUON),
    "images": IMAGES,
    "adapted": ADAPTED,
    "recomputed": RECOMPUTED,
    "words": WORDS,
    "counts": COUNTS,
    "masked": MASKED,
    "translated": TRANSLATED,
    "pretrained": PRETRAINED,
    "causal": CAUSAL,
}
# Number of processes → run → its commands: subcommand, experiment, further arguments.
RUNS: dict[int, dict[str, tuple[tuple, ...]]] = {
    2: {
        "gpt-ddp": (("fit", GPT, DDP),),
        "gpt-fsdp": (("fit", GPT, FSDP),),
        "gpt-offload": (("fit", GPT, (*OFFLOAD, *CRASH)), ("fit", GPT, (*OFFLOAD, *AUTO))),
        "gpt-tp": (("fit", GPT, TP),),
        "gpt-folder": (("fit", GPT, (*FSDP, *FOLDER)),),
        "gpt-tp-folder": (("fit", GPT, (*TP, *FOLDER)),),
        "modern-fsdp": (("fit", EXPERIMENTS["modern"], FSDP),),
        "modern-tp": (("fit", EXPERIMENTS["modern"], TP),),
        "accumulated-ddp": (("fit", EXPERIMENTS["accumulated"], DDP),),
        "accumulated-fsdp": (("fit", EXPERIMENTS["accumulated"], FSDP),),
        "bf16-fsdp": (("fit", EXPERIMENTS["bf16"], FSDP),),
        "muon-ddp": (("fit", EXPERIMENTS["muon"], DDP),),
        "muon-fsdp": (("fit", EXPERIMENTS["muon"], FSDP),),
        "muon-tp": (("fit", EXPERIMENTS["muon"], TP),),
        "lstm-fsdp": (("fit", EXPERIMENTS["lstm"], FSDP),),
        "images-ddp": (("fit", IMAGES, DDP),),
        "adapted-ddp": (("fit", ADAPTED, DDP),),
        "adapted-fsdp": (("fit", ADAPTED, FSDP),),
        "recomputed-ddp": (("fit", RECOMPUTED, DDP),),
        "recomputed-fsdp": (("fit", RECOMPUTED, FSDP),),
        "recomputed-tp": (("fit", RECOMPUTED, TP),),
        "words-ddp": (("fit", WORDS, DDP),),
        "counts-ddp": (("fit", COUNTS, DDP),),
        "masked-ddp": (("fit", MASKED, DDP),),
        "translated-ddp": (("fit", TRANSLATED, DDP),),
        "pretrained-ddp": (("fit", PRETRAINED, DDP),),
        "pretrained-fsdp": (("fit", PRETRAINED, FSDP),),
        "causal-fsdp": (("fit", CAUSAL, FSDP),),
        "images-fsdp": (("fit", IMAGES, FSDP),),
        "batch-norm-ddp": (("fit", BATCH_NORM, DDP),),
        "batch-norm-fsdp": (("fit", BATCH_NORM, FSDP),),
        "stopped-fsdp": (("fit", GPT, (*FSDP, *CRASH)), ("fit", GPT, (*FSDP, *AUTO))),
        "stopped-folder": (
            ("fit", GPT, (*FSDP, *FOLDER, *CRASH)),
            ("fit", GPT, (*FSDP, *FOLDER, *AUTO)),
        ),
        "stopped-adapted": (("fit", ADAPTED, (*FSDP, *CRASH)), ("fit", ADAPTED, (*FSDP, *AUTO))),
        "refused-adapted-tp": (("fit", ADAPTED, TP),),
        "stopped-tp": (("fit", GPT, (*TP, *CRASH)), ("fit", GPT, (*TP, *AUTO))),
        # the test has created a run folder of one process before
        "started-by-one": (("fit", GPT, (*FSDP, *AUTO)),),
        "refused-lstm-tp": (("fit", EXPERIMENTS["lstm"], TP),),
        "refused-heads": (("fit", GPT, (*TP, "--model.net.num_heads", 3)),),
        "validate-folder": (
            (
                *("validate", GPT),
                (*FSDP, "--ckpt_path", "runs/gpt-folder/001/checkpoints/best.ckpt"),
            ),
        ),
    },
    4: {
        "gpt-mesh": (("fit", GPT, MESH),),
        "modern-mesh": (("fit", EXPERIMENTS["modern"], MESH),),
        "accumulated-mesh": (("fit", EXPERIMENTS["accumulated"], MESH),),
        "bf16-mesh": (("fit", EXPERIMENTS["bf16"], MESH),),
        "muon-mesh": (("fit", EXPERIMENTS["muon"], MESH),),
        "gpt-mesh-folder": (("fit", GPT, (*MESH, *FOLDER)),),
        "stopped-mesh": (("fit", GPT, (*MESH, *CRASH)), ("fit", GPT, (*MESH, *AUTO))),
    },
}


class OddDigits(Digits):
    """169 validation images: one of two processes has 85, in 7 batches of 12 and one of 1."""

    def load(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        splits = super().load()
        return splits | {
            name: (splits[name][0][:-11], splits[name][1][:-11]) for name in ("val", "test")
        }


class Lines(TextClassificationDataModule):
    """Lines of this file; whether there are brackets is to be predicted."""

    class_names: ClassVar[list[str]] = ["no", "yes"]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def load(self) -> dict[str, LabeledTexts]:
        lines = [line.strip() for line in Path(__file__).read_text().splitlines() if line.strip()]
        texts = LabeledTexts(lines, [int("(" in line) for line in lines])
        return {
            split: texts.select(range(first, len(lines), 3))
            for first, split in enumerate(("train", "val", "test"))
        }


class Padded(L.LightningDataModule):
    """Sequences of very different lengths: the mean of batch means is not the mean over tokens."""

    def __init__(self, rows: int = 8, steps: int = 8) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        tokens = torch.randint(0, 20, (steps, rows, 17), generator=draw)
        lengths = torch.randint(1, 17, (steps, rows, 1), generator=draw)
        targets = tokens[..., 1:].masked_fill(torch.arange(16) >= lengths, -100)
        self.batches = list(zip(tokens[..., :-1], targets, strict=True))

    def train_dataloader(self) -> DataLoader:
        sampler = self.trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
        size = len(self.batches[0][0]) // sampler["num_replicas"]
        rows = slice(sampler["rank"] * size, (sampler["rank"] + 1) * size)
        mine = [(tokens[rows], targets[rows]) for tokens, targets in self.batches]
        return DataLoader(mine, batch_size=None)


def train_padded(**arguments: Any) -> dict[str, torch.Tensor]:
    """Train with gradients accumulated over two batches and return the full weights."""
    from modules import LanguageModel
    from modules.nets import GPT

    torch.manual_seed(0)
    net = GPT(20, context=16, num_layers=2, num_heads=2, dim=16)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        accumulate_grad_batches=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **arguments,
    )
    task = LanguageModel(net)
    trainer.fit(task, Padded())
    return {
        name: weight.full_tensor() if hasattr(weight, "full_tensor") else weight
        for name, weight in task.state_dict().items()
    }


def work() -> None:
    import train
    from engine.distributed.strategies import ModelParallel
    from tests.support.resume import Crash

    torch.set_num_threads(1)
    number = int(os.environ["WORLD_SIZE"])
    # Registered before train.py registers anything: called last.
    atexit.register(write_whether_joined, f"joined-{number}-{os.environ['LOCAL_RANK']}.json")
    messages: dict[str, Any] = {}
    for name, commands in RUNS[number].items():
        for subcommand, experiment, more in commands:
            stderr = io.StringIO()
            arguments = [subcommand, *experiment, *more, "--experiment", name]
            with contextlib.redirect_stderr(stderr), contextlib.suppress(Crash):
                try:
                    train.main([str(argument) for argument in arguments])
                except SystemExit as stop:
                    messages[name] = {"code": stop.code, "stderr": stderr.getvalue()}
    weights = {
        name: train_padded(devices=number, strategy=strategy)
        for name, strategy in (
            ("ddp", "ddp"),
            ("fsdp", ModelParallel()),
            ("mesh", ModelParallel(2)),
        )
    }
    if os.environ["LOCAL_RANK"] == "0":
        Path(f"messages-{number}.json").write_text(json.dumps(messages))
        torch.save(weights, f"padded-{number}.pt")


def write_whether_joined(file: str) -> None:
    """Write whether this process still has a process group."""
    Path(file).write_text(json.dumps(torch.distributed.is_initialized()))


def start(number: int, folder: Path, program: str = __file__) -> str:
    """Run this or another program in `number` processes; return the output of rank zero.

    Raises:
        AssertionError: If a process failed, with the output of all of them.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(number):
        environment = os.environ | {
            "LOCAL_RANK": str(rank),
            "NODE_RANK": "0",
            "WORLD_SIZE": str(number),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
        }
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        command = [sys.executable, program]
        processes.append(subprocess.Popen(command, cwd=folder, env=environment, **pipes))
    outputs = [process.communicate(timeout=900)[0] for process in processes]
    codes = [process.returncode for process in processes]
    assert not any(codes), f"ended with {codes}:\n" + "\n\n".join(outputs)
    return outputs[0]


if __name__ == "__main__":
    work()
