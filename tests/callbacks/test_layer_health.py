"""LayerHealth: correct statistics, also with accumulation and 16 bits; training is unchanged."""

import csv
import math
from functools import partial
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW
from torch.utils.data import DataLoader

from callbacks import LayerHealth
from datamodules import Digits
from engine.errors import UserError
from engine.run.layers import trainable_layers
from modules import Classifier
from modules.nets import CNN, MLP
from plotting.layer_health import STATISTICS, layer_health_figure, read_layers
from tests.support.small_mlp import Batches, random_batches, small_mlp


@pytest.fixture(autouse=True)
def no_figure(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip drawing, which takes most of the time; see `with_figure`."""
    if "with_figure" not in request.fixturenames:
        monkeypatch.setattr("callbacks.monitoring.layer_health.publish", lambda *_: None)


@pytest.fixture
def with_figure() -> None:
    """Draw the figure in this test."""


def fit(
    folder: Path, batches: Batches, every: int = 1, net=None, optimizer=None, **more
) -> dict[str, dict[str, dict[int, float]]]:
    """Return layers.csv of a fit."""
    task = Classifier(net or small_mlp(), optimizer=optimizer or partial(SGD, lr=0.1))
    settings = {
        "logger": CSVLogger(folder, name="", version=""),
        "max_epochs": 1,
        "callbacks": [LayerHealth(every)],
    }
    quiet = ("enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = L.Trainer(accelerator="cpu", **dict.fromkeys(quiet, False), **(settings | more))
    trainer.fit(task, DataLoader(batches, batch_size=None))
    return read_layers(folder / "layers.csv")


def test_statistics_equal_those_of_a_plain_loop(tmp_path: Path) -> None:
    found = fit(tmp_path, batches := random_batches(3, 8))
    net = small_mlp()
    for step, (inputs, targets) in enumerate(batches, 1):
        net.zero_grad()
        F.cross_entropy(net(inputs), targets).backward()
        for name, layer in (("layers.1", net.layers[1]), ("layers.3", net.layers[3])):
            weights = torch.cat([layer.weight.flatten(), layer.bias])
            gradient = torch.cat([layer.weight.grad.flatten(), layer.bias.grad])
            expected = {
                "gradient_norm": gradient.norm(),
                "weight_norm": weights.norm(),
                "update_ratio": 0.1 * gradient.norm() / weights.norm(),
            }
            for quantity, value in expected.items():
                # 1e-4: six digits are written; an update is a difference in fp32
                assert found[quantity][name][step] == pytest.approx(value.item(), rel=1e-4)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter -= 0.1 * parameter.grad
    assert list(found["weight_norm"]) == ["layers.1", "layers.3"]
    assert list(found["dead_units"]) == ["layers.2"]


def test_accumulated_batches_equal_one_large_batch(tmp_path: Path) -> None:
    halves = random_batches(6, 8)
    pairs = zip(halves[::2], halves[1::2], strict=True)
    large = [(torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]])) for a, b in pairs]
    one = fit(tmp_path / "one", large)
    two = fit(tmp_path / "two", halves, accumulate_grad_batches=2)
    for quantity in one:
        for layer, values in one[quantity].items():
            assert sorted(two[quantity][layer]) == [1, 2, 3]
            assert two[quantity][layer] == pytest.approx(values, rel=1e-4)


def test_gradient_norm_is_taken_before_clipping(tmp_path: Path) -> None:
    free = fit(tmp_path / "free", random_batches(1, 8))
    clipped = fit(tmp_path / "clipped", random_batches(1, 8), gradient_clip_val=0.001)
    assert clipped["gradient_norm"] == free["gradient_norm"]
    assert clipped["update_ratio"]["layers.1"][1] < free["update_ratio"]["layers.1"][1] / 10


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "bf16-true"])
@pytest.mark.parametrize("fused", [False, True])
def test_statistics_in_16_bits_equal_those_in_32(
    tmp_path: Path, precision: str, fused: bool
) -> None:
    optimizer = partial(AdamW, lr=0.01, fused=fused)
    expected = fit(tmp_path / "32", random_batches(2, 64), optimizer=optimizer)
    options = {"precision": precision}
    if precision == "16-mixed":  # Lightning supports it on GPUs only
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        options = {"plugins": MixedPrecision("16-mixed", "cpu", scaler)}
    found = fit(tmp_path / "16", random_batches(2, 64), optimizer=optimizer, **options)
    for quantity in ("gradient_norm", "weight_norm", "update_ratio"):
        for layer, values in expected[quantity].items():
            # bfloat16 has three digits; rounding changes the sign of Adam's first updates
            assert found[quantity][layer] == pytest.approx(values, rel=0.1), (quantity, layer)


class Gate(nn.Module):
    """Unit i of the ReLU is active for images with all values i + 1; the last one never is."""

    def __init__(self) -> None:
        super().__init__()
        self.relu, self.head = nn.ReLU(), nn.Linear(5, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        level = inputs[:, 0, 0, :1]  # (B, 1)
        levels = torch.tensor([1.0, 2.0, 3.0, 4.0, 99.0])
        return self.head(self.relu(0.5 - (level - levels).abs()))  # (B, 5)


def test_unit_is_dead_if_inactive_since_the_last_measurement(tmp_path: Path) -> None:
    levels = [1, 2, 3, 1, 1, 4]
    batches = [(torch.full((2, 1, 4, 4), float(level)), torch.tensor([0, 1])) for level in levels]
    found = fit(tmp_path, batches, every=3, net=Gate())
    # Units 1, 2 and 3 are active in the first interval, 1 and 4 in the second.
    assert found["dead_units"] == {"relu": {3: pytest.approx(2 / 5), 6: pytest.approx(3 / 5)}}


def test_units_of_images_are_channels(tmp_path: Path) -> None:
    net = CNN(image_size=4, channels=[4, 8], hidden_size=6, padding=1)
    with torch.no_grad():
        net.features[0].bias[:3] = -100
    found = fit(tmp_path, random_batches(2, 8), net=net)["dead_units"]
    assert found["features.1"] == {1: 0.75, 2: 0.75}
    assert set(found) == {"features.1", "features.4", "head.2"}


class VaryingWidth(nn.Module):
    """A ReLU over images of alternating width, and one over ten units."""

    def __init__(self) -> None:
        super().__init__()
        self.over_time, self.over_units, self.width = nn.ReLU(), nn.ReLU(), 4
        self.head = nn.Linear(1, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.width = 7 - self.width
        outputs = self.over_time(inputs[:, 0, :, : self.width])  # (B, 4, 3 or 4)
        return self.over_units(self.head(outputs.mean(dim=(1, 2))[:, None]))


def test_last_axis_of_varying_size_has_no_dead_units(tmp_path: Path) -> None:
    found = fit(tmp_path, random_batches(4, 8), every=2, net=VaryingWidth())
    assert list(found["dead_units"]) == ["over_units"]


def test_measures_every_n_steps(tmp_path: Path) -> None:
    found = fit(tmp_path, random_batches(9, 4), every=4)
    assert list(found["gradient_norm"]["layers.1"]) == [4, 8]


def test_measuring_does_not_change_training(tmp_path: Path) -> None:
    nets = small_mlp(), small_mlp()
    fit(tmp_path / "with", random_batches(5, 8), net=nets[0], every=2)
    fit(tmp_path / "without", random_batches(5, 8), net=nets[1], callbacks=[])
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(one, other)
    assert not any(module._forward_hooks for module in nets[0].modules())
    assert not (tmp_path / "without/layers.csv").exists()


def test_interrupted_run_has_figure_and_no_hooks(tmp_path: Path, with_figure) -> None:
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 3:
                raise RuntimeError("interrupted")

    net = small_mlp()
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(tmp_path, random_batches(6, 8), net=net, callbacks=[LayerHealth(1), Stop()])
    assert (tmp_path / "figures/layer_health.png").exists()
    assert not any(module._forward_hooks for module in net.modules())


def test_figure_has_a_panel_per_statistic_and_a_row_per_layer(tmp_path: Path, with_figure) -> None:
    rows = fit(tmp_path, random_batches(20, 8))
    pixels = np.asarray(Image.open(tmp_path / "figures/layer_health.png").convert("RGB"))
    assert pixels.std() > 10
    figure = layer_health_figure(rows)
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.images]
    assert titles == [*STATISTICS.values()]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["layers.1", "layers.3"]
    assert layer_health_figure({}) is None


def test_downsampled_figure_keeps_peaks() -> None:
    values = dict.fromkeys(range(10, 20_000, 10), 1.0) | {7770: 500.0, 9990: math.inf}
    figure = layer_health_figure({"gradient_norm": {"layer": values}})
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape[1] <= 300
    assert shown.max() == 500
    assert shown.mask.sum() == 1  # not finite


def test_trackers_get_statistics_and_metrics_csv_does_not(tmp_path: Path, with_figure) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    loggers = [CSVLogger(tmp_path, name="", version=""), TensorBoardLogger(tmp_path, "board")]
    found = fit(tmp_path, random_batches(4, 8), every=2, logger=loggers)
    seen = reader.EventAccumulator(loggers[1].log_dir).Reload()
    events = seen.Scalars("layers/update_ratio/layers.3")
    assert [event.step for event in events] == [1, 3]  # loggers count from zero
    values = [event.value for event in events]
    assert values == pytest.approx(list(found["update_ratio"]["layers.3"].values()), rel=1e-4)
    assert seen.Images("figures/layer_health")
    metrics = tmp_path / "metrics.csv"
    assert not metrics.exists() or "layers/" not in metrics.read_text()


def test_fast_dev_run_writes_nothing(tmp_path: Path, monkeypatch, with_figure) -> None:
    monkeypatch.chdir(tmp_path)
    fit(tmp_path, random_batches(2, 8), fast_dev_run=True)
    assert list(tmp_path.iterdir()) == []


def test_tied_weights_count_once_and_frozen_ones_not() -> None:
    net = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7, bias=False))
    net[1].weight = net[0].weight
    assert trainable_layers(net) == {"0": [net[0].weight]}
    net = small_mlp()
    net.layers[1].requires_grad_(False)
    assert list(trainable_layers(net)) == ["layers.3"]


def test_layer_without_gradient_has_no_gradient_norm(tmp_path: Path) -> None:
    net = small_mlp()
    net.unused = nn.Linear(2, 2)
    fit(tmp_path, random_batches(1, 8), net=net)
    with (tmp_path / "layers.csv").open() as file:
        rows = {row["layer"]: row for row in csv.DictReader(file)}
    assert rows["unused"]["gradient_norm"] == "nan"
    assert float(rows["unused"]["update_ratio"]) == 0


class TwoOptimizers(Classifier):
    automatic_optimization = False

    def configure_optimizers(self):
        return [SGD(self.parameters(), lr=0.1), SGD(self.parameters(), lr=0.1)]


def test_invalid_interval_and_two_optimizers_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every_n_steps must be at least 1, got 0"):
        LayerHealth(0)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, callbacks=[LayerHealth()], enable_checkpointing=False
    )
    with pytest.raises(UserError, match="one optimizer; TwoOptimizers has 2"):
        trainer.fit(TwoOptimizers(small_mlp()), DataLoader(random_batches(1, 4), batch_size=None))


@pytest.mark.slow
def test_two_processes_measure_the_same_as_one(tmp_path: Path) -> None:
    found = []
    for name, more in (("one", {}), ("two", {"strategy": "ddp_spawn", "devices": 2})):
        torch.manual_seed(0)
        task = Classifier(MLP(image_size=8, hidden_sizes=[6]), optimizer=partial(SGD, lr=0.1))
        trainer = L.Trainer(
            accelerator="cpu",
            logger=CSVLogger(tmp_path / name, name="", version=""),
            callbacks=[LayerHealth(2)],
            max_steps=6,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            **more,
        )
        trainer.fit(task, Digits(batch_size=32))
        found.append(read_layers(tmp_path / name / "layers.csv"))
    one, two = found
    for quantity in one:
        for layer, values in one[quantity].items():
            assert two[quantity][layer] == pytest.approx(values, rel=1e-3), (quantity, layer)
