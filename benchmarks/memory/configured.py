"""Build the job of a config on the meta device, through the parser of train.py."""

import argparse
import warnings
from typing import Any

import lightning as L
import torch
from torch import nn

from benchmarks.memory.job import Job
from engine.errors import UserError
from modules.nets import GPT


class Sizes(L.LightningDataModule):
    """A DataModule that has only sizes, for a text that is not present."""

    def __init__(self, vocab_size: int, context: int, batch_size: int, seed: int = 0) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.context = context
        self.batch_size = batch_size
        self.tokenizer_json = None


def job_from(arguments: list[str], options: argparse.Namespace) -> tuple[Job, L.LightningModule]:
    """Return the job that train.py would train, and its task.

    Raises:
        UserError: If the task has no network, or the batch size is not divisible by the devices.
    """
    from jsonargparse import Namespace

    from cli.command_line import CLI

    class DryRunCLI(CLI):
        """Instantiate task and data on the meta device, and run nothing."""

        def instantiate_classes(self) -> None:
            config = self.config[self.subcommand]
            self.batch_size = config.data.init_args.batch_size
            self.trainer_config = config.trainer
            self.checkpointing = find_checkpointing(config.trainer.callbacks)
            config.trainer = Namespace({**vars(config.trainer), "callbacks": None, "logger": False})
            if options.vocab_size is not None:
                sizes = {"vocab_size": options.vocab_size, "batch_size": self.batch_size}
                sizes["context"] = getattr(config.data.init_args, "context", None)
                name = f"{Sizes.__module__}.{Sizes.__name__}"
                config.data = Namespace(class_path=name, init_args=Namespace(sizes))
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", DeprecationWarning
                )  # Lightning calls it like this, too
                instances = self.parser.instantiate_classes(self.config)
            self.model, self.datamodule = (
                self._get(instances, "model"),
                self._get(instances, "data"),
            )

        def _run_subcommand(self, subcommand: str) -> None:
            """Do not run."""

    cli = DryRunCLI.from_args(["fit", *arguments])
    if getattr(cli.model, "net", None) is None:
        raise UserError(
            f"{type(cli.model).__name__} has no attribute `net`; only such tasks can be analyzed."
        )
    net: nn.Module = cli.model.net
    devices = options.devices
    data_parallel = 1 if options.strategy == "tensor_parallel" else devices
    if cli.batch_size % data_parallel:
        raise UserError(
            f"batch_size {cli.batch_size} is not divisible by {data_parallel} devices: pass "
            "another one after `--`, as in `-- --data.batch_size N`."
        )
    inputs = None
    if not isinstance(net, GPT):
        cli.datamodule.prepare_data()
        cli.datamodule.setup("fit")
        batch = next(iter(cli.datamodule.train_dataloader()))
        inputs, _ = cli.datamodule.on_after_batch_transfer(batch, 0)
    job = Job(
        net,
        rows=cli.batch_size // data_parallel,
        precision=options.precision or _precision(cli, options.device),
        optimizer=cli.model.optimizer,
        strategy=options.strategy,
        devices=devices,
        accumulate=cli.trainer_config.accumulate_grad_batches,
        device=options.device,
        inputs=inputs,
        loss_chunk_size=getattr(cli.model, "loss_chunk_size", None),
        **cli.checkpointing,
    )
    return job, cli.model


def find_checkpointing(callbacks: Any) -> dict[str, Any]:
    """Return the arguments of `Job` for the ActivationCheckpointing among a config's callbacks."""
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        if str(getattr(callback, "class_path", "")).endswith(".ActivationCheckpointing"):
            arguments = callback.init_args
            return {"checkpointing": arguments.mode, "checkpoint_every": arguments.every}
    return {}


def _precision(cli: Any, device: str) -> str:
    from engine.precision import recommended_precision

    precision = cli.trainer_config.precision
    if precision is None and cli.auto_precision:
        return "bf16-mixed" if device == "cuda" else recommended_precision("cpu")[0]
    return {None: "32-true", 32: "32-true", "32": "32-true"}.get(precision, str(precision))
