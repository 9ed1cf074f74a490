"""Measure gradients, weights, updates and dead ReLU units of every layer."""

import csv
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from engine.errors import UserError
from engine.run.figures import publish
from engine.run.layers import l2_norm, layer_name, remaining_loss_scale, trainable_layers
from plotting.layer_health import STATISTICS, layer_health_figure, read_layers


class LayerHealth(Callback):
    """Write statistics of every layer to `layers.csv`, `figures/layer_health.png` and the loggers.

    `gradient_norm`: L2 norm of the gradient, over all accumulated batches and processes, before
        clipping. If it shrinks or grows from layer to layer, gradients vanish or explode.
    `weight_norm`: L2 norm of the weights before the step.
    `update_ratio`: L2 norm of the update divided by that of the weights. About 0.001 is healthy; at
        0.1 the learning rate is too high, at 0.00001 the layer does not learn.
    `dead_units`: fraction of an `nn.ReLU`'s units that were 0 for all samples since the last
        measurement. They receive no gradient; a growing fraction means a too high learning rate.

    A layer is a module that owns parameters; loggers get `layers/<statistic>/<layer>`. Units are
    the channels of images (B, C, H, W), otherwise the last axis; if its size varies, the layer has
    no `dead_units`. `F.relu` cannot be observed. Gradients are unscaled under float16; those of a
    LanguageModel are taken before its correction for padding.

    Cost, on one CPU thread with batches of 128: a step of the 784-128-10 MLP takes 1.4 ms, plus
    0.1 ms for its ReLU and 0.7 ms when it is measured; a step of the CNN of mnist/cnn.yaml takes
    150 ms, with or without.

    Args:
        every_n_steps: Optimizer steps between two measurements, at least 1.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise ValueError(f"LayerHealth: every_n_steps must be at least 1, got {every_n_steps}.")
        self.every_n_steps = every_n_steps
        self._layers: dict[str, list[nn.Parameter]] = {}
        self._weights: list[list[Tensor]] = []  # before the current step, if it is measured
        self._gradient_norms: list[Tensor] = []
        self._active: dict[str, Tensor] = {}  # (units,) bool, since the last measurement
        self._varying: set[str] = set()  # ReLUs whose last axis varies in size
        self._hooks: list[Any] = []
        self._folder: Path | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if len(trainer.optimizers) != 1:
            raise UserError(
                f"trainer.callbacks: LayerHealth needs a task with one optimizer; "
                f"{type(pl_module).__name__} has {len(trainer.optimizers)}. Remove the callback."
            )
        folder = trainer.log_dir  # a collective
        self._folder = None if folder is None else Path(folder)
        self._layers = trainable_layers(pl_module)
        self._hooks = [
            module.register_forward_hook(self._activity_hook(layer_name(name)))
            for name, module in pl_module.named_modules()
            if isinstance(module, nn.ReLU | nn.ReLU6)
        ]

    def _activity_hook(self, name: str) -> Any:
        def hook(relu: nn.Module, args: Any, output: Tensor) -> None:
            if relu.training:
                unit_axis = 1 if output.ndim == 4 else output.ndim - 1
                axes = [axis for axis in range(output.ndim) if axis != unit_axis]
                active = output.detach().amax(dim=axes) > 0  # (units,)
                earlier = self._active.get(name, active)
                if earlier.shape == active.shape:
                    self._active[name] = earlier | active
                else:
                    self._varying.add(name)

        return hook

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if (trainer.global_step + 1) % self.every_n_steps:
            return
        scale = remaining_loss_scale(trainer, optimizer)
        self._gradient_norms = [
            l2_norm(p.grad for p in layer if p.grad is not None) / scale
            for layer in self._layers.values()
        ]
        self._weights = [[p.detach().clone() for p in layer] for layer in self._layers.values()]

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if not self._weights:
            return
        weight_norms = [l2_norm(weights) for weights in self._weights]
        update_norms = [
            l2_norm(p.detach() - old for p, old in zip(layer, weights, strict=True))
            for layer, weights in zip(self._layers.values(), self._weights, strict=True)
        ]
        ratios = [update / norm for update, norm in zip(update_norms, weight_norms, strict=True)]
        active = {
            name: trainer.strategy.reduce(units.float(), reduce_op="sum")
            for name, units in sorted(self._active.items())
            if name not in self._varying
        }
        dead = [(units == 0).float().mean() for units in active.values()]
        device = pl_module.device
        values = [v.to(device) for v in (*self._gradient_norms, *weight_norms, *ratios, *dead)]
        numbers = torch.stack(values).tolist()  # one device sync
        self._weights, self._gradient_norms, self._active = [], [], {}
        if trainer.is_global_zero:
            keys = [(statistic, layer) for statistic in [*STATISTICS][:3] for layer in self._layers]
            keys += [("dead_units", name) for name in active]
            self._write(trainer, dict(zip(keys, numbers, strict=True)))

    def _write(self, trainer: Trainer, values: dict[tuple[str, str], float]) -> None:
        step = trainer.global_step
        if self._folder is not None:
            path = self._folder / "layers.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not path.exists()
            with path.open("a", newline="") as file:
                writer = csv.writer(file)
                if is_new:
                    writer.writerow(["step", "layer", *STATISTICS])
                for layer in dict.fromkeys(layer for _, layer in values):
                    cells = (values.get((statistic, layer)) for statistic in STATISTICS)
                    writer.writerow(
                        [step, layer, *("" if cell is None else f"{cell:.6g}" for cell in cells)]
                    )
        metrics = {f"layers/{statistic}/{layer}": v for (statistic, layer), v in values.items()}
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):  # layers.csv is beside its metrics.csv
                logger.log_metrics(metrics, step=step - 1)  # loggers count steps from zero

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._remove_hooks()
        file = None if self._folder is None else self._folder / "layers.csv"
        publish(
            trainer,
            "layer_health",
            lambda: layer_health_figure(read_layers(file)) if file else None,
        )

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._remove_hooks()
        # With several processes the others may not have failed, so collectives would hang.
        if trainer.state.fn == TrainerFn.FITTING and trainer.world_size == 1 and self._layers:
            self.on_fit_end(trainer, pl_module)

    def _remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._active = [], {}
