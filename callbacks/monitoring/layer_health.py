"""How each layer fares while it learns: gradients, weights, updates, and units that never fire."""

import csv
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from matplotlib import colormaps
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from torch import Tensor, nn

from engine.run.figures import INK, publish

QUANTITIES = {
    "gradient_norm": "gradient norm",
    "weight_norm": "weight norm",
    "update_ratio": "update / weight",
    "dead_units": "dead ReLU units, share",
}
MOST_COLUMNS = 300  # of a heat map: more are too narrow to be seen
Rows = dict[str, dict[str, dict[int, float]]]  # quantity → layer → step → value


class LayerHealth(Callback):
    """Measures every layer now and then: `layers.csv`, `figures/layer_health.png`, and the loggers.

    `gradient_norm`: length of the step's gradient, with all accumulated batches and processes in
        it, before clipping. Where it shrinks or grows from layer to layer, it vanishes or explodes.
    `weight_norm`: length of the layer's weights before the step.
    `update_ratio`: length of the step's change, as a share of that of the weights. About 0.001 is
        healthy; at 0.1 the rate is too high, at 0.00001 the layer learns nothing.
    `dead_units`: share of an `nn.ReLU`'s units that have not fired once since the last measurement.
        They receive no gradient: where their share grows, the rate is too high.

    A layer is a module that owns parameters; loggers see `layers/<quantity>/<layer>`. Units are the
    channels of pictures (B, C, H, W), and the last axis of anything else; where its length varies
    they are not counted. A ReLU that is called as a function can't be watched. Under float16
    gradients are unscaled first. A LanguageModel's are seen before its correction for padding.

    Cost, on one thread of a CPU with batches of 128: the 784-128-10 MLP's step of 1.4 ms takes
    0.1 ms more for its ReLU and 0.7 ms more where it is measured; the tutorial CNN's step of 150 ms
    changes by less than it varies by itself.

    Args:
        every_n_steps: Optimizer steps between two measurements, at least 1.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise ValueError(f"LayerHealth: every_n_steps must be 1 or more, not {every_n_steps}.")
        self.every_n_steps = every_n_steps
        self._layers: dict[str, list[nn.Parameter]] = {}
        self._before: list[
            list[Tensor]
        ] = []  # weights before the step under way, if it is measured
        self._gradient_norms: list[Tensor] = []
        self._fired: dict[str, Tensor] = {}  # (units,) whether each has fired since the last time
        self._timed: set[str] = set()  # ReLUs whose last axis is of no fixed length
        self._hooks: list[Any] = []
        self._folder: Path | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if len(trainer.optimizers) != 1:
            raise MisconfigurationException(
                f"LayerHealth measures tasks with one optimizer; {type(pl_module).__name__} has "
                f"{len(trainer.optimizers)}: leave the callback out."
            )
        folder = trainer.log_dir  # a broadcast: every process must ask
        self._folder = None if folder is None else Path(folder)
        self._layers = layers_of(pl_module)
        self._hooks = [
            module.register_forward_hook(self._watch(_short(name)))
            for name, module in pl_module.named_modules()
            if isinstance(module, nn.ReLU | nn.ReLU6)
        ]

    def _watch(self, name: str) -> Any:
        def hook(relu: nn.Module, args: Any, output: Tensor) -> None:
            if relu.training:
                units = 1 if output.ndim == 4 else output.ndim - 1
                axes = [axis for axis in range(output.ndim) if axis != units]
                fires = output.detach().amax(dim=axes) > 0  # (units,)
                before = self._fired.get(name, fires)
                if before.shape == fires.shape:
                    self._fired[name] = before | fires
                else:  # the last axis is time, and there are no units to count
                    self._timed.add(name)

        return hook

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if (trainer.global_step + 1) % self.every_n_steps:
            return
        scale = scale_left_in_gradients(trainer, optimizer)
        self._gradient_norms = [
            length(p.grad for p in layer if p.grad is not None) / scale
            for layer in self._layers.values()
        ]
        self._before = [[p.detach().clone() for p in layer] for layer in self._layers.values()]

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if not self._before:
            return
        weights = [length(before) for before in self._before]
        changes = [
            length(p.detach() - old for p, old in zip(layer, before, strict=True))
            for layer, before in zip(self._layers.values(), self._before, strict=True)
        ]
        ratios = [change / weight for change, weight in zip(changes, weights, strict=True)]
        fired = {
            name: trainer.strategy.reduce(fires.float(), reduce_op="sum")
            for name, fires in sorted(self._fired.items())
            if name not in self._timed
        }
        dead = [(fires == 0).float().mean() for fires in fired.values()]
        values = [v.to(pl_module.device) for v in (*self._gradient_norms, *weights, *ratios, *dead)]
        table = torch.stack(values).tolist()  # the device is waited for once
        self._before, self._gradient_norms, self._fired = [], [], {}
        if trainer.is_global_zero:
            found = [(q, layer) for q in list(QUANTITIES)[:3] for layer in self._layers]
            found += [("dead_units", name) for name in fired]
            self._write(trainer, dict(zip(found, table, strict=True)))

    def _write(self, trainer: Trainer, values: dict[tuple[str, str], float]) -> None:
        step = trainer.global_step
        if self._folder is not None:
            file = self._folder / "layers.csv"
            file.parent.mkdir(parents=True, exist_ok=True)
            new = not file.exists()
            with file.open("a", newline="") as rows:
                writer = csv.writer(rows)
                if new:
                    writer.writerow(["step", "layer", *QUANTITIES])
                for layer in dict.fromkeys(layer for _, layer in values):
                    cells = (values.get((quantity, layer)) for quantity in QUANTITIES)
                    writer.writerow(
                        [step, layer, *("" if cell is None else f"{cell:.6g}" for cell in cells)]
                    )
        metrics = {f"layers/{quantity}/{layer}": v for (quantity, layer), v in values.items()}
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):  # layers.csv lies beside its metrics.csv
                logger.log_metrics(metrics, step=step - 1)  # as Lightning counts: from zero

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._leave_the_net_alone()
        file = None if self._folder is None else self._folder / "layers.csv"
        publish(trainer, "layer_health", lambda: health_figure(read_layers(file)) if file else None)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._leave_the_net_alone()
        # Of several processes perhaps only this one failed: it must not wait for the others.
        if trainer.state.fn == TrainerFn.FITTING and trainer.world_size == 1 and self._layers:
            self.on_fit_end(trainer, pl_module)

    def _leave_the_net_alone(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._fired = [], {}


def layers_of(task: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Name and own trainable parameters of every module that has any; what is tied counts once."""
    seen: set[int] = set()
    layers: dict[str, list[nn.Parameter]] = {}
    for name, module in task.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.requires_grad and id(p) not in seen]
        seen |= {id(p) for p in own}
        if own:
            layers[_short(name)] = own
    return layers


def _short(name: str) -> str:
    return name.removeprefix("net.") or "task"


def length(tensors: Iterable[Tensor]) -> Tensor:
    """The length of several tensors taken as one vector, in full precision; NaN of none."""
    norms = [torch.linalg.vector_norm(t.detach().float()) for t in tensors]
    # Of a sharded parameter each process holds a part.
    whole = [n.full_tensor() if hasattr(n, "full_tensor") else n for n in norms]
    return torch.stack(whole).norm() if whole else torch.tensor(math.nan)


def scale_left_in_gradients(trainer: Trainer, optimizer: torch.optim.Optimizer) -> float:
    """What float16's gradients are still multiplied with: a fused optimizer divides by itself."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    unscales = getattr(optimizer, "_step_supports_amp_scaling", False)
    return float(scaler.get_scale()) if scaler is not None and unscales else 1.0


def read_layers(file: Path) -> Rows:
    """Reads layers.csv; of a step measured twice, as after a resume, the later row counts."""
    rows: Rows = {}
    if file.exists():
        with file.open(newline="") as lines:
            for line in csv.DictReader(lines):
                for quantity in QUANTITIES:
                    if line[quantity]:
                        layer = rows.setdefault(quantity, {}).setdefault(line["layer"], {})
                        layer[int(line["step"])] = float(line[quantity])
    return rows


def health_figure(rows: Rows) -> Figure | None:
    """Draws a heat map a quantity: layers from first to last downwards, time to the right."""
    if not rows:
        return None
    heights = [max(0.16 * len(rows[quantity]), 0.9) for quantity in rows]
    figure = Figure(figsize=(9, sum(heights) + 0.9 * len(rows) + 0.3))
    for axes, (quantity, layers) in zip(
        figure.subplots(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0],
        rows.items(),
        strict=True,
    ):
        steps = sorted({step for values in layers.values() for step in values})
        table = np.array(
            [[values.get(step, math.nan) for step in steps] for values in layers.values()]
        )  # (layers, measurements)
        table, steps = _thinned(table, steps)
        colours = colormaps["viridis" if quantity != "dead_units" else "OrRd"].with_extremes(
            bad=INK
        )
        image = axes.imshow(
            np.ma.masked_invalid(table),
            aspect="auto",
            cmap=colours,
            norm=Normalize(0, 1) if quantity == "dead_units" else _decades(table),
        )
        axes.set_title(QUANTITIES[quantity], loc="left")
        axes.spines[:].set_visible(False)
        every = math.ceil(len(layers) / 40)
        axes.set_yticks(range(0, len(layers), every), list(layers)[::every], fontsize=6)
        marks = np.unique(np.linspace(0, len(steps) - 1, min(6, len(steps))).round().astype(int))
        axes.set_xticks(marks, [f"{steps[mark]:,}" for mark in marks])
        axes.tick_params(length=0)
        figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01).outline.set_visible(False)
    axes.set_xlabel("step")
    return figure


def _thinned(table: np.ndarray, steps: list[int]) -> tuple[np.ndarray, list[int]]:
    """As many columns as can be seen, each the largest of its neighbours: no peak is lost."""
    width = math.ceil(len(steps) / MOST_COLUMNS)
    starts = range(0, len(steps), width)
    columns = [np.fmax.reduce(table[:, start : start + width], axis=1) for start in starts]
    return np.stack(columns, axis=1), [steps[start] for start in starts]


def _decades(table: np.ndarray) -> LogNorm:
    seen = table[np.isfinite(table) & (table > 0)]
    low, high = (seen.min(), seen.max()) if len(seen) else (1e-3, 1.0)
    return LogNorm(low, max(high, low * 1.01))
