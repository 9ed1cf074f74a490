"""The command line behind train.py: LightningCLI with a run folder and promises."""

import inspect
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial, reduce, wraps
from operator import or_
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, get_args

import lightning as L
import torch
import yaml
from jsonargparse import ArgumentError, Namespace, get_loader, set_loader
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from cli.diagnosis import did_you_mean, explain, root_cause, source_location
from engine.checkpoint.reading import check_checkpoint, check_fits, init_from, read_checkpoint
from engine.checkpoint.resuming import check_unchanged, checkpoint_of, newest_unfinished_run
from engine.checkpoint.writing import Checkpoints, find_checkpoints
from engine.distributed.strategies import check_devices
from engine.guards.finite_loss import FiniteLoss
from engine.guards.full_disk import disk_full_error, find_disk_full
from engine.guards.preemption import Preemption
from engine.guards.preflight import Preflight
from engine.guards.rank_failure import find_rank_failure, limit_rendezvous
from engine.lightning_internals import disable_empty_hooks
from engine.precision import recommended_precision
from engine.renamed import upgrade
from engine.run.console import TrainingHeader, print_summary
from engine.run.csv_logger import ResumableCSVLogger
from engine.run.expectations import is_met
from engine.run.folder import experiment_name, new_run_folder
from engine.run.garbage_collection import GarbageCollection
from engine.run.predictions import PredictionWriter
from engine.run.progress import ProgressBar
from engine.run.record import RunRecord
from engine.run.trackers import (
    Ids,
    TrackerArtifacts,
    fill_placeholders,
    finish_trackers,
    read_ids,
    start_trackers,
)
from modules import *  # noqa: F403  # so that the short names of tasks are known

CHOICES = ("optimizer", "lr_scheduler")  # of a task: naming one starts from its class's defaults
TRAINER = {
    "logger": False,  # the CSV logger is always there; a tracker is an overlay
    "use_distributed_sampler": False,  # our samplers know their rank
    "enable_model_summary": False,
}


class CLI(LightningCLI):
    """LightningCLI with a run folder, promises, and sizes that come from the data."""

    run_folder: Path | None = None  # known on rank zero; None for a fast_dev_run
    # What a program that trains through this one, as tune.py does, adds to a run:
    origin: Mapping[str, Any] = MappingProxyType({})  # told in the run's config.yaml and results
    extra_callbacks: Sequence[L.Callback] = ()
    tests_after_fit = True
    tracked: Ids = {}  # noqa: RUF012  # under which ids trackers know a run that goes on

    @classmethod
    def from_args(cls, args: ArgsType, **more: Any) -> Self:
        """Read a command line (that of the process by default) and do what it says."""
        whole_numbers_first(L.Trainer.__init__)
        accept_old_names()
        return cls(
            L.LightningModule,
            L.LightningDataModule,
            save_config_callback=RunRecord,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            trainer_defaults=TRAINER,
            args=args,
            **more,
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        parser = {"allow_abbrev": False, "exit_on_error": False}
        self._keep_subcommand(words(kwargs["args"]))
        kwargs["parser_kwargs"] = parser | {name: dict(parser) for name in self.subcommands()}
        try:
            super().__init__(*args, **kwargs)  # parses, builds and runs
        except BaseException as error:
            finish_trackers(self.trainer.loggers if hasattr(self, "trainer") else [], failed=True)
            self.discard_run_without_traces()
            if cause := find_disk_full(error):
                raise disk_full_error(cause, self.run_folder) from error
            if failure := find_rank_failure(error, getattr(self, "trainer", None)):
                raise failure from error
            raise

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """One and the same: what a task's optimizer is made by knows us, and with us trainer and
        data, and averages of weights begin with a copy of the task."""
        return self

    def _keep_subcommand(self, given: Sequence[str]) -> None:
        """Lightning makes a parser of all keys for each; we only for the one that is asked for."""
        commands = self.subcommands()
        first = given[0] if given else ""
        if first in commands:
            # No lambda: where processes are spawned, they are sent a copy of us.
            self.subcommands = partial(dict, {first: commands[first]})  # type: ignore[method-assign]
        elif first not in ("-h", "--help"):
            names = ", ".join(commands)
            raise ArgumentError(
                None,
                f"the first word must be what to do, one of {names}, as in `python train.py fit "
                f"--config configs/digits/mlp.yaml`; it is {first!r}.{did_you_mean(first, commands)}",
            )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add = parser.add_argument
        add("--experiment", type=str | None, help="Name of the experiment; else the config's path.")
        add("--runs_dir", type=str, default="runs", help="Folder of all run folders.")
        add("--expect", type=dict[str, str], default={}, help='{"test/accuracy": ">= 0.98"}, …')
        add("--test_after_fit", type=bool, default=True, help="Evaluate the best after fit.")
        add("--auto_precision", type=bool, default=False, help="Let the hardware choose precision.")
        parser.add_lightning_class_args(Checkpoints, "checkpoint")
        parser.add_lightning_class_args(TrackerArtifacts, "tracking")
        add("--resume", type=str | None, help="Run folder to go on with, or auto: the newest.")
        add("--init_from", type=str | None, help="Checkpoint to begin with the weights of.")
        parser.link_arguments("seed_everything", "data.init_args.seed")
        for name in ("num_classes", "class_names", "preprocessing"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        for name in ("tokenizer", "source_tokenizer", "target_tokenizer"):
            parser.link_arguments(
                f"data.{name}_json", f"model.init_args.{name}", apply_on="instantiate"
            )
        sizes = ["num_classes", "in_channels", "image_size", "vocab_size", "context"]
        sizes += ["source_vocab_size", "target_vocab_size", "shared_vocabulary"]
        for name in (*sizes, "data_dir"):  # the last for a net that begins with weights of others
            target = f"model.init_args.net.init_args.{name}"
            parser.link_arguments(f"data.{name}", target, apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        given = with_config_of_resumed(words(args))
        try:
            super().parse_arguments(parser, choose_afresh(given))
        except (ArgumentError, UnicodeDecodeError) as error:
            parsers = self._subcommand_parsers.values()
            keys = {key for p in parsers for key in p.get_defaults().keys()}  # noqa: SIM118
            raise ArgumentError(None, explain(error, keys, given)) from error

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except ValueError as error:
            if "val_check_interval" in str(error):  # more batches than an epoch has
                raise MisconfigurationException(str(error).strip()) from error
            raise

    def _parse_ckpt_path(self) -> None:
        """Lightning would let a checkpoint silently override config and flags."""

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise MisconfigurationException(f"seed_everything: {error}.") from error

    def _dump_config(self) -> None:
        """Lightning trips over a net whose arguments all come from the data."""
        super()._dump_config()
        net = self.config_dump["model"].get("init_args", {}).get("net")
        if isinstance(net, dict):
            net.setdefault("init_args", {})

    def before_instantiate_classes(self) -> None:
        for metric, promise in self._get(self.config, "expect").items():
            try:
                is_met(promise, 0.0)
            except ValueError as error:
                raise MisconfigurationException(f"expect: {metric}: {error}.") from error
        for key in ("augmentation", "batch_mixing"):
            if self._get(self.config, f"data.init_args.{key}.init_args.transforms") == []:
                raise MisconfigurationException(
                    f"data.{key}.transforms is empty: name one transform or more, or have none at "
                    f"all by --data.{key} null."
                )
        path = self._get(self.config, "ckpt_path")
        if path is not None and self.subcommand == "fit":
            raise MisconfigurationException(
                "fit takes no ckpt_path: --resume RUN_FOLDER goes on with a run, --init_from "
                f"{path} begins a new one with its weights."
            )
        if path is None and self.subcommand != "fit":
            raise MisconfigurationException(
                f"{self.subcommand} needs the weights of a run: name its checkpoint, as in "
                "--ckpt_path runs/…/checkpoints/best.ckpt."
            )
        if path in ("best", "last"):
            raise MisconfigurationException(
                f"ckpt_path: {path!r} is not known to a new process; name the file, as in "
                f"--ckpt_path runs/…/checkpoints/{path}.ckpt."
            )
        self.checkpoint = None  # a folder of shards may be larger than the memory of this machine
        if path is not None and Path(path).is_dir():
            check_checkpoint(path)
        elif path is not None:
            self.checkpoint = read_checkpoint(path)
        self.resumed = self.find_resumed() if self.subcommand == "fit" else None
        trainer = self._get(self.config, "trainer")
        if not isinstance(trainer, Namespace):
            raise MisconfigurationException(
                f"trainer: expected keys with values, as in max_epochs: 3, not {trainer!r}."
            )
        for name, least, means in (
            ("accumulate_grad_batches", 1, "accumulates nothing"),
            ("log_every_n_steps", 1, "logs every step"),
            ("check_val_every_n_epoch", 1, "validates in each epoch"),
            ("gradient_clip_val", 0, "clips nothing"),
        ):
            if (value := trainer[name]) is not None and value < least:
                raise MisconfigurationException(
                    f"trainer.{name} is {value}: it must be {least}, which {means}, or more."
                )
        if trainer.val_check_interval == 0:
            raise MisconfigurationException(
                "trainer.val_check_interval is 0: it must be above 0; to validate nothing say "
                "--trainer.limit_val_batches 0."
            )
        check_devices(trainer, self._get(self.config, "ckpt_path"))

    def find_resumed(self) -> Path | None:
        """The run folder to go on with; `ckpt_path` then is its checkpoint. All ranks agree."""
        asked = self._get(self.config, "resume")
        if asked is None:
            return None
        if asked == "auto":
            folder = newest_unfinished_run(self.runs_of_experiment, check_checkpoint)
            if folder is None:
                return None
        else:
            folder = Path(asked)
        checkpoint = checkpoint_of(folder, check_checkpoint)
        if checkpoint is None:
            raise MisconfigurationException(
                f"--resume: {folder} has no checkpoint that can be read; begin anew without."
            )
        parser, config = self._parser(self.subcommand), self.config[self.subcommand]
        # Read as config files are: an argument that is newer than the run has its default.
        try:
            saved = parser.parse_path(folder / "config.yaml")
        except ArgumentError as error:
            told = explain(error, parser.get_defaults().keys())
            raise MisconfigurationException(f"--resume: {folder}/config.yaml: {told}") from error
        then, now = (yaml.safe_load(parser.dump(c, skip_none=False)) for c in (saved, config))
        check_unchanged(then, now, folder)
        config.ckpt_path = str(checkpoint)
        self.checkpoint = None if checkpoint.is_dir() else read_checkpoint(checkpoint)
        self.tracked = read_ids(folder)
        return folder

    @property
    def auto_precision(self) -> bool:
        return bool(self._get(self.config, "auto_precision"))

    @property
    def runs_of_experiment(self) -> Path:
        configs = [str(path) for path in self._get(self.config, "config") or []]
        experiment = self._get(self.config, "experiment") or experiment_name(configs)
        return Path(self._get(self.config, "runs_dir"), experiment)

    def instantiate_classes(self) -> None:
        self.raw_config = self.config.clone()  # with `{run_folder}` unfilled, so that it runs again
        if self.subcommand == "fit":
            self.raw_config[self.subcommand].resume = None
            self.raw_config[self.subcommand].ckpt_path = None  # that of `find_resumed`, this time
        if (
            getattr(rank_zero_only, "rank", 0) == 0
            and not self._get(self.config, "trainer").fast_dev_run
        ):
            runs = self.runs_of_experiment
            self.run_folder = self.resumed or new_run_folder(runs.parent, runs.name)
            fill_placeholders(
                self._get(self.config, "trainer").logger, self.run_folder, self.tracked
            )
        else:  # other ranks write nothing, and a dry run has no folder: no tracker may be opened
            self._get(self.config, "trainer").logger = False
        try:
            super().instantiate_classes()
        except (TypeError, ValueError, ModuleNotFoundError) as error:
            cause = root_cause(error)
            raise MisconfigurationException(f"{source_location(cause)}{cause}") from error
        # Lightning does it after it has loaded a checkpoint, whose doubles would be rounded.
        self.trainer.precision_plugin.convert_module(self.model)
        if self.checkpoint is not None:
            check_fits(self.checkpoint, self.model, self._get(self.config, "ckpt_path"))
            self.checkpoint = None
        if self.subcommand == "fit" and self._get(self.config, "init_from") and not self.resumed:
            init_from(self._get(self.config, "init_from"), self.model)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        self.config = self.raw_config
        wanted = self._get(self.config_init, "trainer")
        why = ""
        if self.auto_precision and wanted.precision is None:
            kwargs["precision"], why = recommended_precision(str(wanted.accelerator))
        given = wanted.callbacks or []
        callbacks = [*given] if isinstance(given, list) else [given]
        callbacks += [Preflight(), TrainingHeader(why), FiniteLoss()]
        callbacks += [Preemption(), GarbageCollection(), *self.extra_callbacks]
        if self.subcommand == "predict":
            callbacks.append(PredictionWriter())
        if wanted.enable_progress_bar is not False:
            callbacks.append(ProgressBar())
        self.promises = self._get(self.config, "expect")
        self.save_config_kwargs = {
            "expectations": self.promises,
            "origin": dict(self.origin),
            "resumed": self.resumed is not None,
        }
        try:
            trainer = super().instantiate_trainer(callbacks=callbacks, **kwargs)
        except RuntimeError as error:
            if found := re.search(r"more than one stateful callback of type `(\w+)`", str(error)):
                raise MisconfigurationException(
                    f"trainer.callbacks: there are two of {found[1]}. The experiment, or the run "
                    "that goes on, has the one that an overlay adds: leave the overlay out."
                ) from error
            raise
        limit_rendezvous(trainer.strategy)
        disable_empty_hooks(trainer.callbacks)  # type: ignore[attr-defined]
        if not wanted.fast_dev_run:
            folder = self.run_folder or Path(self._get(self.config, "runs_dir"), "unknown", "000")
            csv = ResumableCSVLogger(
                folder.parent.parent, name=folder.parent.name, version=folder.name
            )
            if self.run_folder:
                start_trackers(trainer.loggers, self.run_folder)
            trainer.loggers = [csv, *trainer.loggers]  # first: trainer.log_dir is the run folder
        else:  # Lightning would write a last.ckpt all the same
            trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, Checkpoints)]  # type: ignore[attr-defined]
        return trainer

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
        if self._get(self.config, "test_after_fit") and best:
            job: dict[str, Any] = {
                "datamodule": self.datamodule,
                "ckpt_path": best,
                "verbose": False,
            }
            metrics += self.trainer.validate(self.model, **job)
            testable = is_overridden("test_dataloader", self.datamodule, L.LightningDataModule)
            testable = testable and getattr(self.datamodule, "has_test_split", True)
            if testable and self.tests_after_fit:
                metrics += self.trainer.test(self.model, **job)
        self.finish(metrics)

    def finish(self, found: Iterable[Mapping[str, float]]) -> None:
        """Write the results and say them."""
        metrics = {name: value for one in found for name, value in sorted(one.items())}
        for record in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(record, RunRecord):
                record.write_results(self.trainer, metrics)
        finish_trackers(self.trainer.loggers)  # W&B's farewell would come after our last line
        if self.run_folder:
            print_summary(metrics, self.promises, self.run_folder)

    def discard_run_without_traces(self) -> None:
        """A run that failed before it trained leaves nothing half-written."""
        if self.run_folder and not any(
            (self.run_folder / trace).exists() for trace in ("checkpoints", "metrics.csv")
        ):
            shutil.rmtree(self.run_folder)
            with suppress(OSError):  # other runs of the experiment stay
                self.run_folder.parent.rmdir()


def whole_numbers_first(function: Callable) -> None:
    """Let `1` be a whole number wherever a parameter takes either kind.

    `typing` has one union of int and float, in the order of whoever asked first, and a parser tries
    kinds in that order. Where PyTorch asks before Lightning, `limit_train_batches: 1`, one batch,
    is read as 1.0: all of them.
    """
    kinds_of = inspect.unwrap(function).__annotations__
    for name, kind in kinds_of.items():
        kinds = list(get_args(kind))
        if int in kinds and float in kinds and kinds.index(float) < kinds.index(int):
            kinds.remove(int)
            kinds.insert(kinds.index(float), int)
            kinds_of[name] = reduce(or_, kinds)  # this one keeps its order


def accept_old_names() -> None:
    """Make all parsers upgrade old class paths, arguments and values in the YAML that they read."""
    load = get_loader("yaml")
    if not hasattr(load, "__wrapped__"):
        set_loader(
            "yaml",
            wraps(load)(lambda text: upgrade(load(text))),
            exceptions=(yaml.YAMLError,),
        )


def words(args: ArgsType) -> list[str]:
    """The command line that is meant: that of the process, unless one was given."""
    return sys.argv[1:] if args is None else list(args)


def with_config_of_resumed(arguments: list[str]) -> list[str]:
    """`fit --resume FOLDER` begins with the config that the run was begun with."""
    arguments = [str(argument) for argument in arguments]
    for place, argument in reversed([*enumerate(arguments)]):  # the last one holds
        name, equals, value = argument.partition("=")
        if name == "--resume" and (equals or place + 1 < len(arguments)):
            folder = value if equals else arguments[place + 1]
            if folder == "auto":
                return arguments
            config = Path(folder, "config.yaml")
            if not config.is_file():
                raise MisconfigurationException(
                    f"--resume: {folder} is no run folder (it has no config.yaml). Name one, as in "
                    "--resume runs/digits-cnn/001, or say --resume auto."
                )
            after = arguments.index("fit") + 1 if "fit" in arguments else 0
            return [*arguments[:after], "--config", str(config), *arguments[after:]]
    return arguments


def choose_afresh(args: Sequence[str]) -> list[str]:
    """Let whoever names an optimizer or a schedule start from the defaults of its class.

    jsonargparse keeps what an earlier config told the class that it named, wherever the new class
    takes an argument of that name too: SGD would inherit AdamW's `weight_decay` and `fused`. So a
    `null` is put between a choice and the one before it. Arguments without a class, such as
    `--model.optimizer.lr 0.1`, still change the choice that stands. A bare name, `SGD`, is torch's.

    Args:
        args: The command line.

    Returns:
        The command line with `--model.<optimizer or lr_scheduler> null` before each later choice.
    """
    args = list(args)
    chosen: set[str] = set()
    result: list[str] = []
    for position, arg in enumerate(args):
        option, equals, value = arg.partition("=")
        if not equals:
            value = "".join(args[position + 1 : position + 2])
        names = _choices(option, value)
        for name in sorted(names & chosen):
            result += [f"--model.{name}", "null"]
        chosen |= names
        if names == {"optimizer"} and hasattr(torch.optim, value):
            if equals:
                arg = f"{option}=torch.optim.{value}"
            else:
                args[position + 1] = f"torch.optim.{value}"
        result.append(arg)
    return result


def _choices(option: str, value: str) -> set[str]:
    """Which of optimizer and lr_scheduler an option names a class for."""
    if found := re.fullmatch(
        rf"--model\.(?:init_args\.)?({'|'.join(CHOICES)})(\.class_path)?", option
    ):
        return set() if value == "null" else {found[1]}
    if option not in ("--config", "-c") or not Path(value).is_file():
        return set()
    try:
        config: Any = yaml.safe_load(Path(value).read_bytes())
        arguments = config["model"]["init_args"]
        told = {name: arguments.get(name) for name in CHOICES}
    except (yaml.YAMLError, OSError, TypeError, KeyError, AttributeError):
        return set()  # no model in it; or broken, which the parser will tell
    return {
        name
        for name, choice in told.items()
        if isinstance(choice, str) or (isinstance(choice, dict) and "class_path" in choice)
    }
