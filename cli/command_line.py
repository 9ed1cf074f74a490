"""LightningCLI with run folders, sizes linked from the data, and expected results."""

import inspect
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import reduce
from operator import or_
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, get_args

import lightning as L
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from torch import nn

import datamodules  # noqa: F401  # its classes have short names on the command line
from cli.arguments import Arguments, expand_values, read_config
from cli.checks import (
    check_config,
    check_data_given,
    check_not_complete,
    check_schedule_lasts,
    load_checkpoint,
)
from cli.diagnosis import Schema, explain, raised_by, root_cause, source_location
from cli.expectations import describe_other_data, reason_not_judged
from cli.links import Links
from cli.options import OPTIONS
from engine.checkpoint.reading import check_checkpoint, check_fits, init_from, restore_base
from engine.checkpoint.resuming import check_unchanged, checkpoint_of, newest_unfinished_run
from engine.checkpoint.writing import Checkpoints, find_checkpoints
from engine.distributed.deferred_init import DeferredInit
from engine.errors import UserError
from engine.guards.finite_loss import FiniteLoss
from engine.guards.full_disk import disk_full_error, find_disk_full
from engine.guards.preemption import Preemption, raise_on_sigterm, terminate_on_sigterm
from engine.guards.preflight import Preflight
from engine.guards.rank_failure import find_rank_failure, limit_rendezvous
from engine.lightning_internals import disable_empty_hooks
from engine.precision import is_missing_kernel, recommended_precision
from engine.renamed import upgrade
from engine.run.config_text import dump_config, load_yaml
from engine.run.console import TrainingHeader, ValidationLines, print_summary
from engine.run.csv_logger import ResumableCSVLogger, epoch_means
from engine.run.expectations import judge
from engine.run.folder import new_run_folder
from engine.run.garbage_collection import GarbageCollection
from engine.run.predictions import PredictionWriter
from engine.run.progress import ProgressBar
from engine.run.record import RunRecord
from engine.run.trackers import (
    RunIds,
    TrackerArtifacts,
    fill_placeholders,
    finish_trackers,
    read_ids,
    start_trackers,
)
from modules import *  # noqa: F403  # its classes have short names on the command line

GROUPS = {"trainer": L.Trainer, "checkpoint": Checkpoints, "tracking": TrackerArtifacts}
TRAINER_DEFAULTS = {
    "logger": False,  # the CSV logger is always added; trackers are overlays
    "use_distributed_sampler": False,  # our samplers distribute by rank themselves
    "enable_model_summary": False,
}


class CLI(LightningCLI):
    """LightningCLI whose runs have a folder, with sizes linked from the data.

    A program that trains through it, as tune.py does, may set `origin` (written to config.yaml and
    results.json), `extra_callbacks` and `tests_after_fit`.
    """

    run_folder: Path | None = None  # on rank zero; None for a fast_dev_run
    origin: Mapping[str, Any] = MappingProxyType({})
    extra_callbacks: Sequence[L.Callback] = ()
    tests_after_fit = True
    tracker_ids: RunIds = {}  # noqa: RUF012  # of a resumed run
    not_judged: str | None = None  # why the results are not compared with `expect`

    @classmethod
    def from_args(cls, args: ArgsType, **kwargs: Any) -> Self:
        """Parse a command line (that of the process by default), build and run what it asks for."""
        prefer_int(L.Trainer.__init__)
        expand_values()
        return cls(
            L.LightningModule,
            None,  # any LightningDataModule, or none
            save_config_callback=RunRecord,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            trainer_defaults=TRAINER_DEFAULTS,
            args=args,
            **kwargs,
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        words = sys.argv[1:] if kwargs["args"] is None else kwargs["args"]
        self.command = Arguments(words)
        self.links = Links(self.command)
        parser = {"allow_abbrev": False, "exit_on_error": False}
        kwargs["parser_kwargs"] = parser | {self.command.subcommand: dict(parser)}
        try:
            with raise_on_sigterm():
                super().__init__(*args, **kwargs)  # parses, builds and runs
        except BaseException as error:
            finish_trackers(self.trainer.loggers if hasattr(self, "trainer") else [], failed=True)
            self.discard_empty_run()
            if cause := find_disk_full(error):
                raise disk_full_error(cause, self.run_folder) from error
            if failure := find_rank_failure(error, getattr(self, "trainer", None)):
                raise failure from error
            raise

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the same object: weight averaging copies the task, which refers to it."""
        return self

    # Parsing

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Only the subcommand at hand: the parser of each takes long to build."""
        return {self.command.subcommand: super().subcommands()[self.command.subcommand]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name, (kind, default, text) in OPTIONS.items():
            parser.add_argument(f"--{name}", type=kind, default=default, help=text)
        parser.add_lightning_class_args(Checkpoints, "checkpoint")
        parser.add_lightning_class_args(TrackerArtifacts, "tracking")
        self.links.add_to(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        try:
            super().parse_arguments(parser, self.command.to_words())
        except (ArgumentError, SyntaxError) as error:  # the latter of a user's file
            raise UserError(explain(error, self.command.settings, self.schema)) from error

    @property
    def schema(self) -> Schema:
        keys = {name: kind for name, (kind, _, _) in OPTIONS.items()}
        keys |= {"seed_everything": bool | int, "ckpt_path": str | None}
        keys |= {"model": L.LightningModule, "data": L.LightningDataModule}
        linked = [*self.links.targets, "data.seed"]
        return Schema(keys, {**GROUPS, self.command.subcommand: type(None)}, linked)

    def _parse_ckpt_path(self) -> None:
        """Do not let the checkpoint's hyper-parameters override config and flags."""

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise UserError(f"seed_everything: {error}.") from error
        config = self.config[self.subcommand]
        if self.links.seeds_data and config.get("data") is not None:
            config.data.init_args.seed = config.seed_everything  # the drawn one, for `true`

    def _dump_config(self) -> None:
        """Dump without validation, and complete a net without arguments, as Lightning expects."""
        if hasattr(self, "config_dump"):
            return
        text = dump_config(self.parser, self.config, link_targets=True)
        self.config_dump = load_yaml(text)[self.subcommand]
        net = self.config_dump["model"].get("init_args", {}).get("net")
        if isinstance(net, dict):
            net.setdefault("init_args", {})

    # Checks before anything is built or written

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        check_config(config, self.command.subcommand)
        check_data_given(config, self.links.task)
        self.not_judged = reason_not_judged(self.command)
        path = config.ckpt_path
        self.checkpoint = None if path is None else load_checkpoint(path)
        self.resumed = self.find_resumed() if self.subcommand == "fit" else None
        config.trainer.logger = _distinct(config.trainer.logger)

    def find_resumed(self) -> Path | None:
        """Return the run folder to resume and set `ckpt_path` to its checkpoint, on all ranks."""
        config = self.config[self.subcommand]
        if config.resume is None:
            return None
        if config.resume == "auto":
            folder = newest_unfinished_run(self.runs_of_experiment, check_checkpoint)
            if folder is None:
                return None
        else:
            folder = Path(config.resume)
        path = checkpoint_of(folder, check_checkpoint)
        if path is None:
            raise UserError(
                f"cannot resume {folder}: it has no readable checkpoint. Start a new run without "
                "--resume."
            )
        then, now = self._check_same_config(folder, config)
        self.checkpoint = load_checkpoint(path)
        check_not_complete(self.checkpoint, config.trainer, folder)
        check_schedule_lasts(self.checkpoint, then, now, folder)
        config.ckpt_path = str(path)
        self.tracker_ids = read_ids(folder)
        return folder

    def _check_same_config(
        self, folder: Path, config: Namespace
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Check that only what may change differs from the run, and return both configs."""
        parser = self._parser(self.subcommand)
        try:  # as a config file: an argument that is newer than the run takes its default
            saved = parser.parse_object(upgrade(read_config(folder / "config.yaml")))
        except ArgumentError as error:
            words = ["fit", "--config", str(folder / "config.yaml")]
            message = explain(error, Arguments(words).settings, self.schema)
            raise UserError(f"--resume: {message}") from error
        then, now = (load_yaml(dump_config(parser, one)) for one in (saved, config))
        check_unchanged(then, now, folder)
        return then, now

    @property
    def auto_precision(self) -> bool:
        return bool(self._get(self.config, "auto_precision"))

    @property
    def runs_of_experiment(self) -> Path:
        config = self.config[self.subcommand]
        return self.command.experiment_folder(config.runs_dir, config.experiment)

    # Building task, data and trainer

    def instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        self.raw_config = self.config.clone()  # with `{run_folder}` unfilled, so that it runs again
        if self.subcommand == "fit":
            self.raw_config[self.subcommand].resume = None
            self.raw_config[self.subcommand].ckpt_path = None  # set by `find_resumed`
        self.expectations = {} if describe_other_data(self.command) else dict(config.expect)
        if self.not_judged:
            self.raw_config[self.subcommand].expect = {}
        if getattr(rank_zero_only, "rank", 0) == 0 and not config.trainer.fast_dev_run:
            runs = self.runs_of_experiment
            self.run_folder = self.resumed or new_run_folder(runs.parent, runs.name)
            fill_placeholders(config.trainer.logger, self.run_folder, self.tracker_ids)
        else:  # other ranks and dry runs have no folder, and open no tracker
            config.trainer.logger = False
        if self.subcommand == "fit" and uses_meta_device(config):
            self.parser.add_instantiator(build_on_meta_device, nn.Module)
        try:
            super().instantiate_classes()
        except (TypeError, ValueError, ModuleNotFoundError) as error:
            self._check_required_links()
            cause = root_cause(error)
            raise UserError(f"{source_location(cause)}{cause}") from error
        # Lightning converts after loading a checkpoint, which would round its doubles.
        self.trainer.precision_plugin.convert_module(self.model)
        if self.checkpoint is not None:
            restore_base(self.model, self.checkpoint)
            check_fits(self.checkpoint, self.model, config.ckpt_path)
            self.checkpoint = None
        if self.subcommand == "fit" and config.init_from and not self.resumed:
            init_from(config.init_from, self.model)

    def _check_required_links(self) -> None:
        """After a failure to build: was an argument missing that the data should define?"""
        with suppress(TypeError, ValueError, ModuleNotFoundError):  # the data itself failed
            config = self.raw_config[self.subcommand]
            parser = self._parser(self.subcommand)
            built = parser.instantiate_classes(Namespace(data=config.get("data")))
            self.links.check_required(built.data)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        self.links.check(self.datamodule, self.model)
        self.config = self.raw_config
        given = self._get(self.config_init, "trainer")
        precision_reason = ""
        if self.auto_precision and given.precision is None:
            precision, precision_reason = recommended_precision(str(given.accelerator))
            kwargs["precision"] = precision
        callbacks = given.callbacks or []
        callbacks = [*callbacks] if isinstance(callbacks, list) else [callbacks]
        callbacks += [Preflight(), TrainingHeader(precision_reason), ValidationLines()]
        callbacks += [FiniteLoss()]
        callbacks += [Preemption(), GarbageCollection(), *self.extra_callbacks]
        if self.subcommand == "predict":
            callbacks.append(PredictionWriter())
        if given.enable_progress_bar is not False:
            callbacks.append(ProgressBar())
        self.save_config_kwargs = {
            "origin": dict(self.origin),
            "resumed": self.resumed is not None,
        }
        _check_unique_states(callbacks)
        trainer = super().instantiate_trainer(callbacks=callbacks, **kwargs)
        limit_rendezvous(trainer.strategy)
        if isinstance(trainer.strategy, ParallelStrategy):
            terminate_on_sigterm()
        disable_empty_hooks(trainer.callbacks)  # type: ignore[attr-defined]
        if not given.fast_dev_run:
            folder = self.run_folder or Path(self._get(self.config, "runs_dir"), "unknown", "000")
            csv = ResumableCSVLogger(
                folder.parent.parent, name=folder.parent.name, version=folder.name
            )
            if self.run_folder:
                start_trackers(trainer.loggers, self.run_folder)
            trainer.loggers = [csv, *trainer.loggers]  # first: trainer.log_dir is the run folder
        else:  # Lightning would write a last.ckpt nevertheless
            trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, Checkpoints)]  # type: ignore[attr-defined]
        return trainer

    # Running

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except (ValueError, RuntimeError) as error:
            if is_missing_kernel(error) and self.trainer.precision != "32-true":
                raise UserError(
                    f"this CPU cannot run an operation of {type(self.model).__name__} with "
                    f"--trainer.precision {self.trainer.precision} ({error}). Use --trainer."
                    "precision 32-true, or modules.nets.layers.LSTM in place of torch.nn.LSTM."
                ) from error
            if not raised_by("lightning", error):
                raise
            # Lightning refuses a setting, such as a monitored metric that is not logged.
            raise UserError(str(error).strip()) from error

    def test(self, **kwargs: Any) -> None:
        self.finish(self.trainer.test(**{**kwargs, "verbose": False}))

    def validate(self, **kwargs: Any) -> None:
        self.finish(self.trainer.validate(**{**kwargs, "verbose": False}))

    def predict(self, **kwargs: Any) -> None:
        self.trainer.predict(**{**kwargs, "return_predictions": False})
        self.finish([])

    def after_fit(self) -> None:
        if self.trainer.interrupted:
            return
        metrics: list[Mapping[str, float]] = [
            {name: value.item() for name, value in self.trainer.callback_metrics.items()}
        ]
        checkpoints = find_checkpoints(self.trainer)
        best = checkpoints.best_model_path if checkpoints else ""
        validates = is_overridden("validation_step", self.model) and self._has("val_dataloader")
        if checkpoints and not best and validates and checkpoints.monitor:
            rank_zero_warn(
                "the run ended before its first validation, so there is no best checkpoint to "
                "test. Train longer, or lower trainer.val_check_interval."
            )
        if self._get(self.config, "test_after_fit") and best:
            evaluate: dict[str, Any] = {
                "datamodule": self.datamodule,
                "ckpt_path": best,
                "verbose": False,
            }
            if validates:
                metrics += self.trainer.validate(self.model, **evaluate)
            if self.tests_after_fit and self._has_test():
                metrics += self.trainer.test(self.model, **evaluate)
        self.finish(metrics)

    def _has_test(self) -> bool:
        """Whether the task tests and there are test data."""
        split = getattr(self.datamodule, "has_test_split", True)
        return split and is_overridden("test_step", self.model) and self._has("test_dataloader")

    def _has(self, dataloader: str) -> bool:
        if self.datamodule is None:
            return is_overridden(dataloader, self.model)
        return is_overridden(dataloader, self.datamodule, L.LightningDataModule)

    def finish(self, results: Sequence[Mapping[str, float]]) -> None:
        """Write and print the results."""
        metrics = {name: value for result in results for name, value in sorted(result.items())}
        if self.run_folder and self.subcommand == "fit":
            means = epoch_means(self.run_folder / "metrics.csv")
            metrics |= {name: mean for name, mean in means.items() if name in metrics}
        judgments = judge(self.expectations, metrics, self.not_judged)
        for record in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(record, RunRecord):
                record.write_results(self.trainer, metrics, judgments)
        finish_trackers(self.trainer.loggers)  # before our last line: W&B prints a summary
        if self.run_folder:
            print_summary(metrics, judgments, self.run_folder)

    def discard_empty_run(self) -> None:
        """Remove the folder of a run that failed before it trained."""
        if self.run_folder and not any(
            (self.run_folder / name).exists() for name in ("checkpoints", "metrics.csv")
        ):
            shutil.rmtree(self.run_folder)
            with suppress(OSError):  # the experiment has other runs
                self.run_folder.parent.rmdir()


def uses_meta_device(config: Namespace) -> bool:
    """Return whether the network of a run is to be built on the meta device.

    Raises:
        UserError: If the run starts from weights that are loaded into a complete network.
    """
    strategy = config.trainer.strategy
    if not getattr(getattr(strategy, "init_args", None), "meta_device", False):
        return False
    if config.init_from or config.model.init_args.get("adapter") is not None:
        raise UserError(
            "--trainer.strategy.meta_device does not support --init_from and adapters: leave it "
            "out."
        )
    return True


def build_on_meta_device(cls: type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
    """Build a network without its matrices; its attribute `deferred_weights` computes them."""
    if "defer_weights" in inspect.signature(cls).parameters:  # it reads them from files
        return cls(*args, **kwargs | {"defer_weights": True})
    with DeferredInit() as init:
        net = cls(*args, **kwargs)
    net.__dict__["deferred_weights"] = init.weights(net)
    return net


def _check_unique_states(callbacks: Sequence[L.Callback]) -> None:
    """Refuse two callbacks that would save their states under the same key."""
    seen: dict[str, L.Callback] = {}
    for callback in callbacks:
        if not (is_overridden("state_dict", callback, L.Callback)):
            continue
        if callback.state_key in seen:
            raise UserError(
                f"trainer.callbacks: there are two {type(callback).__name__} with the same "
                "arguments. The experiment, or the resumed run, has the one that an overlay adds: "
                "leave the overlay out."
            )
        seen[callback.state_key] = callback


def _distinct(logger: Any) -> Any:
    """Loggers without repetitions: a resumed run already has the one that an overlay adds.

    `true` means Lightning's default, in whose place is the run's CSV logger.
    """
    if not isinstance(logger, list):
        return False if logger is True else logger
    return [one for position, one in enumerate(logger) if one not in logger[:position]]


def prefer_int(function: Callable) -> None:
    """Make a parser read `1` as an int wherever a parameter is annotated with int and float.

    `typing` caches unions regardless of their order, and a parser tries types in that order. If
    PyTorch has built the union first, `limit_train_batches: 1` (one batch) is read as 1.0 (all).
    """
    annotations = inspect.unwrap(function).__annotations__
    for name, annotation in annotations.items():
        kinds = list(get_args(annotation))
        if int in kinds and float in kinds and kinds.index(float) < kinds.index(int):
            kinds.remove(int)
            kinds.insert(kinds.index(float), int)
            annotations[name] = reduce(or_, kinds)  # not cached
