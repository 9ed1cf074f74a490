"""All uses of Lightning's private API; each names the public API that would replace it."""

from collections.abc import Iterable
from datetime import timedelta
from functools import wraps
from typing import Any

from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.fabric.utilities.logger import _flatten_dict
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.core import saving
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from lightning.pytorch.loggers import WandbLogger
from torch.distributed import distributed_c10d

from engine.renamed import upgrade_hyperparameters

# Hooks that Lightning calls for every callback in every training step.
STEP_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


def disable_empty_hooks(callbacks: Iterable[Callback]) -> None:
    """Hide step hooks that a callback only inherits; calling an empty hook takes about 2 µs.

    Public alternative: none; Lightning skips a hook only where the attribute is not callable.
    """
    for callback in callbacks:
        for hook in STEP_HOOKS:
            if getattr(type(callback), hook) is getattr(Callback, hook):
                setattr(callback, hook, None)


def optimizer_steps(trainer: Trainer) -> int:
    """Return the number of optimizer steps before the current batch, the step at which loggers log.

    Public alternative: `trainer.global_step`, once it counts a step for several optimizers once.
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def is_accumulating(trainer: Trainer) -> bool:
    """Return whether the current batch ends without an optimizer step (gradient accumulation).

    Public alternative: an argument of `on_train_batch_end`, requested in Lightning's issue 12205.
    """
    return trainer.fit_loop._should_accumulate()


def cluster_environment(trainer: Trainer) -> ClusterEnvironment | None:
    """Return the cluster environment, also of a strategy for a single device.

    Public alternative: `Strategy.cluster_environment`, which only parallel strategies have.
    """
    return trainer._accelerator_connector.cluster_environment


def reset_train_dataloader(trainer: Trainer) -> None:
    """Make `fit_loop.setup_data` build the training data loader again.

    Public alternative: `trainer.reload_dataloaders_every_n_epochs`, which waits for the next epoch.
    """
    trainer.fit_loop._combined_loader = None


def finish_restart(trainer: Trainer) -> None:
    """Correct the state of a fit loop that resumes from a checkpoint written between two steps.

    - The state of the data loader is lost where a schedule asked for the number of steps.
    - A ReduceLROnPlateau is not stepped at the end of an epoch while the loop is restarting.
    - A step after which validation is due is counted twice.

    Public alternative: none; Lightning's own checkpoints are written inside hooks.
    """
    fit_loop = trainer.fit_loop
    fit_loop._load_combined_loader_states()
    fit_loop._restarting = False
    loop = fit_loop.epoch_loop
    if loop.restarting and loop._should_check_val_fx(fit_loop._data_fetcher):  # type: ignore[arg-type]
        loop._batches_that_stepped -= 1


def attached_trainer(module: LightningModule) -> Trainer | None:
    """Return a module's trainer, or None where it has none.

    Public alternative: `LightningModule.trainer`, which raises where there is none.
    """
    return module._trainer


def built_by_cli() -> bool:
    """Return whether LightningCLI is instantiating a module and passes its hyper-parameters.

    Public alternative: none; `save_hyperparameters` reads the same variable.
    """
    return _given_hyperparameters.get() is not None


def swap_strategy_timeout(strategy: Any, timeout: timedelta) -> timedelta:
    """Set the timeout that a parallel strategy passes to `init_process_group`; return the old one.

    Public alternative: the strategy's argument `timeout`, which also sets that of collectives.
    """
    old, strategy._timeout = strategy._timeout, timeout
    return old


def set_collective_timeout(timeout: timedelta) -> None:
    """Set the timeout of the default process group.

    Public alternative: `torch.distributed.distributed_c10d.set_timeout`, which older versions lack.
    """
    set_timeout = getattr(distributed_c10d, "set_timeout", None) or distributed_c10d._set_pg_timeout
    set_timeout(timeout)


def flatten_dict(values: dict[str, Any]) -> dict[str, Any]:
    """Flatten nested dicts to keys such as `a/b`, as Lightning's loggers do.

    Public alternative: none in Lightning.
    """
    return _flatten_dict(values)


def drop_anonymous_setting(logger: WandbLogger) -> None:
    """Remove `anonymous` from the arguments of `wandb.init`, which warns that it has no effect.

    Public alternative: none; Lightning always passes it, as None by default.
    """
    logger._wandb_init.pop("anonymous", None)


def upgrade_loaded_hyperparameters() -> None:
    """Make `load_from_checkpoint` accept old class paths, arguments and values.

    Public alternative: a hook before the module is built; `on_load_checkpoint` runs after it.
    """
    load_state = saving._load_state
    if hasattr(load_state, "__wrapped__"):
        return

    @wraps(load_state)
    def upgraded(cls: type, checkpoint: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        upgrade_hyperparameters(checkpoint, f"{cls.__module__}.{cls.__qualname__}")
        return load_state(cls, checkpoint, *args, **kwargs)

    saving._load_state = upgraded


upgrade_loaded_hyperparameters()
