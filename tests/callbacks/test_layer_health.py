"""The health of layers: right numbers, under accumulation and 16 bits too, and nets left alone."""

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
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW
from torch.utils.data import DataLoader

from callbacks import LayerHealth
from callbacks.monitoring.layer_health import health_figure, layers_of, read_layers
from datamodules import Digits
from modules import Classifier
from modules.nets import CNN, MLP
from tests.support.small_mlp import Batches, random_batches, small_mlp


def fit(
    folder: Path, batches: Batches, every: int = 1, net=None, optimizer=None, **more
) -> dict[str, dict[str, dict[int, float]]]:
    """What layers.csv says after a fit."""
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


def test_the_numbers_are_those_of_a_loop_by_hand(tmp_path: Path) -> None:
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
                # 1e-4: six digits are written; the change of a weight is a difference in fp32
                assert found[quantity][name][step] == pytest.approx(value.item(), rel=1e-4)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter -= 0.1 * parameter.grad
    assert list(found["weight_norm"]) == ["layers.1", "layers.3"]
    assert list(found["dead_units"]) == ["layers.2"]


def test_accumulated_batches_are_one_gradient_and_one_step(tmp_path: Path) -> None:
    halves = random_batches(6, 8)
    pairs = zip(halves[::2], halves[1::2], strict=True)
    wholes = [(torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]])) for a, b in pairs]
    one = fit(tmp_path / "one", wholes)
    two = fit(tmp_path / "two", halves, accumulate_grad_batches=2)
    for quantity in one:
        for layer, values in one[quantity].items():
            assert sorted(two[quantity][layer]) == [1, 2, 3]
            assert two[quantity][layer] == pytest.approx(values, rel=1e-4)


def test_clipping_does_not_hide_how_long_a_gradient_is(tmp_path: Path) -> None:
    free = fit(tmp_path / "free", random_batches(1, 8))
    clipped = fit(tmp_path / "clipped", random_batches(1, 8), gradient_clip_val=0.001)
    assert clipped["gradient_norm"] == free["gradient_norm"]
    assert clipped["update_ratio"]["layers.1"][1] < free["update_ratio"]["layers.1"][1] / 10


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "bf16-true"])
@pytest.mark.parametrize("fused", [False, True])
def test_sixteen_bits_show_the_values_of_thirty_two(
    tmp_path: Path, precision: str, fused: bool
) -> None:
    optimizer = partial(AdamW, lr=0.01, fused=fused)
    expected = fit(tmp_path / "32", random_batches(2, 64), optimizer=optimizer)
    how = {"precision": precision}
    if precision == "16-mixed":  # which Lightning itself gives to GPUs only
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        how = {"plugins": MixedPrecision("16-mixed", "cpu", scaler)}
    found = fit(tmp_path / "16", random_batches(2, 64), optimizer=optimizer, **how)
    for quantity in ("gradient_norm", "weight_norm", "update_ratio"):
        for layer, values in expected[quantity].items():
            # bfloat16 has three digits, and Adam's first steps turn rounding into ±lr
            assert found[quantity][layer] == pytest.approx(values, rel=0.1), (quantity, layer)


class Gate(nn.Module):
    """Unit i of the ReLU fires on pictures that are all i + 1; the last never does."""

    def __init__(self) -> None:
        super().__init__()
        self.relu, self.head = nn.ReLU(), nn.Linear(5, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        level = inputs[:, 0, 0, :1]  # (B, 1)
        wanted = torch.tensor([1.0, 2.0, 3.0, 4.0, 99.0])
        return self.head(self.relu(0.5 - (level - wanted).abs()))  # (B, 5)


def test_a_unit_is_dead_that_has_not_fired_since_the_last_measurement(tmp_path: Path) -> None:
    levels = [1, 2, 3, 1, 1, 4]
    batches = [(torch.full((2, 1, 4, 4), float(level)), torch.tensor([0, 1])) for level in levels]
    found = fit(tmp_path, batches, every=3, net=Gate())
    # 1, 2 and 3 fire once each in the first interval; of the second only 1 and 4 do.
    assert found["dead_units"] == {"relu": {3: pytest.approx(2 / 5), 6: pytest.approx(3 / 5)}}


def test_the_units_of_pictures_are_channels(tmp_path: Path) -> None:
    net = CNN(image_size=4, channels=[4, 8], hidden_size=6, padding=1)
    with torch.no_grad():
        net.features[0].bias[:3] = -100
    found = fit(tmp_path, random_batches(2, 8), net=net)["dead_units"]
    assert found["features.1"] == {1: 0.75, 2: 0.75}
    assert set(found) == {"features.1", "features.4", "head.2"}


class Ragged(nn.Module):
    """A ReLU over pictures cut to another width every time, and one over ten units."""

    def __init__(self) -> None:
        super().__init__()
        self.over_time, self.over_units, self.width = nn.ReLU(), nn.ReLU(), 4
        self.head = nn.Linear(1, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.width = 7 - self.width
        found = self.over_time(inputs[:, 0, :, : self.width])  # (B, 4, 3 or 4)
        return self.over_units(self.head(found.mean(dim=(1, 2))[:, None]))


def test_a_last_axis_of_changing_length_counts_no_units(tmp_path: Path) -> None:
    found = fit(tmp_path, random_batches(4, 8), every=2, net=Ragged())
    assert list(found["dead_units"]) == ["over_units"]


def test_measurements_come_every_so_many_steps(tmp_path: Path) -> None:
    found = fit(tmp_path, random_batches(9, 4), every=4)
    assert list(found["gradient_norm"]["layers.1"]) == [4, 8]


def test_training_is_the_same_with_and_without(tmp_path: Path) -> None:
    nets = small_mlp(), small_mlp()
    fit(tmp_path / "with", random_batches(5, 8), net=nets[0], every=2)
    fit(tmp_path / "without", random_batches(5, 8), net=nets[1], callbacks=[])
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(one, other)
    assert not any(module._forward_hooks for module in nets[0].modules())
    assert not (tmp_path / "without/layers.csv").exists()


def test_an_interrupted_run_has_its_picture_and_no_hooks(tmp_path: Path) -> None:
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 3:
                raise RuntimeError("out of luck")

    net = small_mlp()
    with pytest.raises(RuntimeError, match="out of luck"):
        fit(tmp_path, random_batches(6, 8), net=net, callbacks=[LayerHealth(1), Stop()])
    assert (tmp_path / "figures/layer_health.png").exists()
    assert not any(module._forward_hooks for module in net.modules())


def test_the_picture_holds_every_layer_and_is_not_blank(tmp_path: Path) -> None:
    rows = fit(tmp_path, random_batches(20, 8))
    picture = np.asarray(Image.open(tmp_path / "figures/layer_health.png").convert("RGB"))
    assert picture.std() > 10
    figure = health_figure(rows)
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.images]
    assert titles == ["gradient norm", "weight norm", "update / weight", "dead ReLU units, share"]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["layers.1", "layers.3"]
    assert health_figure({}) is None


def test_a_peak_among_thousands_of_measurements_is_seen() -> None:
    values = dict.fromkeys(range(10, 20_000, 10), 1.0) | {7770: 500.0, 9990: math.inf}
    figure = health_figure({"gradient_norm": {"layer": values}})
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape[1] <= 300
    assert shown.max() == 500
    assert shown.mask.sum() == 1  # no number: in ink


def test_trackers_are_told_and_metrics_csv_is_not(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    loggers = [CSVLogger(tmp_path, name="", version=""), TensorBoardLogger(tmp_path, "board")]
    found = fit(tmp_path, random_batches(4, 8), every=2, logger=loggers)
    seen = reader.EventAccumulator(loggers[1].log_dir).Reload()
    events = seen.Scalars("layers/update_ratio/layers.3")
    assert [event.step for event in events] == [1, 3]  # as Lightning counts: from zero
    told = [event.value for event in events]
    assert told == pytest.approx(list(found["update_ratio"]["layers.3"].values()), rel=1e-4)
    assert seen.Images("figures/layer_health")
    metrics = tmp_path / "metrics.csv"
    assert not metrics.exists() or "layers/" not in metrics.read_text()


def test_a_dry_run_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    fit(tmp_path, random_batches(2, 8), fast_dev_run=True)
    assert list(tmp_path.iterdir()) == []


def test_tied_weights_are_one_layer_and_frozen_ones_none() -> None:
    net = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7, bias=False))
    net[1].weight = net[0].weight
    assert layers_of(net) == {"0": [net[0].weight]}
    net = small_mlp()
    net.layers[1].requires_grad_(False)
    assert list(layers_of(net)) == ["layers.3"]


def test_a_layer_without_gradient_has_no_gradient_norm(tmp_path: Path) -> None:
    net = small_mlp()
    net.unused = nn.Linear(2, 2)
    fit(tmp_path, random_batches(1, 8), net=net)
    with (tmp_path / "layers.csv").open() as file:
        rows = {row["layer"]: row for row in csv.DictReader(file)}
    assert rows["unused"]["gradient_norm"] == "nan"
    assert float(rows["unused"]["update_ratio"]) == 0


class Two(Classifier):
    automatic_optimization = False

    def configure_optimizers(self):
        return [SGD(self.parameters(), lr=0.1), SGD(self.parameters(), lr=0.1)]


def test_a_wrong_interval_and_two_optimizers_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every_n_steps must be 1 or more, not 0"):
        LayerHealth(0)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, callbacks=[LayerHealth()], enable_checkpointing=False
    )
    with pytest.raises(MisconfigurationException, match="tasks with one optimizer; Two has 2"):
        trainer.fit(Two(small_mlp()), DataLoader(random_batches(1, 4), batch_size=None))


@pytest.mark.slow
def test_two_processes_measure_what_one_does(tmp_path: Path) -> None:
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
