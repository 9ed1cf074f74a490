"""Speed, gradient norms, learning rate and memory of a run, under documented names."""

import csv
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.utils.data import DataLoader

from callbacks import GradientNorms, LearningRate, Memory, Speed
from callbacks.monitoring import speed
from callbacks.monitoring.gradient_norms import parameter_groups
from engine.run.flops import count_flops, fake_copy, measured_peak_flops
from modules import Classifier
from modules.nets import CNN, GPT, MLPLM, RNNLM
from plotting.curves import curves_figure, read_metrics
from tests.support import ROOT, TINY
from tests.support.small_mlp import random_batches, small_mlp

MONITOR = ("--config", ROOT / "configs/trainer/monitor.yaml")
Rows = dict[int, dict[str, float]]


def fit(folder: Path, callback: L.Callback, batches: Any, net=None, **more: Any) -> Rows:
    """Return the metrics that a fit logs: {step: {name: value}}."""
    task = Classifier(net or small_mlp(), optimizer=partial(SGD, lr=0.1))
    settings = {
        "logger": CSVLogger(folder, name="", version=""),
        "max_epochs": 1,
        "log_every_n_steps": 1,
        "callbacks": [callback],
    }
    quiet = ("enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = L.Trainer(accelerator="cpu", **dict.fromkeys(quiet, False), **(settings | more))
    trainer.fit(task, DataLoader(batches, batch_size=None))
    return rows_of(folder / "metrics.csv")


def rows_of(file: Path) -> Rows:
    rows: Rows = {}
    with file.open() as lines:
        for row in csv.DictReader(lines):
            found = {name: float(value) for name, value in row.items() if value}
            rows.setdefault(int(found.pop("step")), {}).update(found)
    return rows


class Clock:
    """A clock that tests advance."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = 100.0
        monkeypatch.setattr(speed, "synchronized_time", lambda device: self.time)


class Ticks(L.Callback):
    """Advance the clock by 0.25 s per batch and an hour per validation."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_start(self, *_: Any) -> None:
        self.clock.time += 0.25

    def on_validation_epoch_end(self, *_: Any) -> None:
        self.clock.time += 3600


def test_throughput_and_mfu_equal_a_manual_count(tmp_path: Path, monkeypatch) -> None:
    clock = Clock(monkeypatch)
    batches = [*random_batches(9, 8)[:8], *random_batches(1, 3)]  # the last one has 3 rows
    monkeypatch.setattr(Classifier, "val_dataloader", lambda self: DataLoader(batches[:1], None))
    rows = fit(
        tmp_path,
        Speed(peak_tflops=0.001),
        batches,
        callbacks=[Ticks(clock), Speed(peak_tflops=0.001)],
        log_every_n_steps=3,
        val_check_interval=4,
    )
    found = {step: row for step, row in rows.items() if "speed/samples_per_second" in row}
    assert sorted(found) == [2, 5, 8]  # the steps of train/loss
    # Neither the first step counts nor the hour of validation after the fourth.
    assert [row["speed/samples_per_second"] for row in found.values()] == pytest.approx(
        [2 * 8 / 0.5, 3 * 8 / 0.75, (8 + 8 + 3) / 0.75]
    )
    # 16-6-10: two products each for outputs and weight gradients, one for the hidden gradient.
    flops_per_sample = 2 * (16 * 6 + 6 * 10) * 2 + 2 * 6 * 10
    assert found[2]["speed/tflops"] == pytest.approx(32 * flops_per_sample / 1e12)
    assert found[2]["speed/mfu"] == pytest.approx(32 * flops_per_sample / 1e9)
    assert not any("speed/tokens_per_second" in row for row in found.values())


def test_accumulated_batches_and_tokens_are_counted(tmp_path: Path, monkeypatch) -> None:
    clock = Clock(monkeypatch)
    pairs = [(inputs, targets[:, None].expand(-1, 5)) for inputs, targets in random_batches(8, 4)]
    monkeypatch.setattr(
        Classifier, "_step", lambda self, batch, stage: (self.net(batch[0]).mean(),) * 2
    )
    monkeypatch.setattr(Classifier, "log", lambda *_, **__: None)
    monkeypatch.setattr(
        Classifier, "training_step", lambda self, batch, i: self._step(batch, "")[0]
    )
    rows = fit(
        tmp_path,
        Speed(),
        pairs,
        callbacks=[Ticks(clock), Speed(peak_tflops=1)],
        log_every_n_steps=2,
        accumulate_grad_batches=2,
    )
    (first, second) = (row for row in rows.values() if "speed/samples_per_second" in row)
    assert first["speed/samples_per_second"] == second["speed/samples_per_second"] == 4 / 0.25
    assert second["speed/tokens_per_second"] == 5 * 4 / 0.25


GPT_SIZE = {"num_layers": 2, "num_heads": 2, "dim": 32, "context": 16}


@pytest.mark.parametrize("kind", ["linear", "gpt", "eager", "rnn", "gru", "lstm", "conv"])
def test_flops_equal_the_formulas(kind: str) -> None:
    tokens = torch.zeros(3, 16, dtype=torch.long)
    tolerance = 0.0
    if kind == "linear":
        net, inputs = nn.Linear(7, 5), torch.zeros(4, 7)
        expected = 2 * 2 * 4 * 7 * 5  # no gradient goes to the inputs
    elif kind == "conv":
        net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1))
        inputs = torch.zeros(2, 2, 8, 8)
        expected = 2 * 2 * 64 * 9 * (2 * (2 * 4) + 3 * (4 * 6))
    elif kind in ("gpt", "eager"):
        attention = "sdpa" if kind == "gpt" else kind
        net, inputs = GPT(65, attention=attention, **GPT_SIZE), tokens
        named = net.named_parameters()
        weights = sum(p.numel() for n, p in named if "position" not in n and p.ndim > 1)
        expected = 6 * (weights * 48) + 12 * 2 * 32 * 16 * 48
        tolerance = 0.1  # a fused backward kernel recomputes one product: 5 instead of 4
    else:
        net, inputs = RNNLM(65, cell=kind, dim=32), tokens
        recurrent = [p for n, p in net.named_parameters() if p.ndim > 1 and "embedding" not in n]
        expected = 6 * sum(p.numel() for p in recurrent) * 48
        tolerance = 0.1  # tied embeddings, an initial state without gradient
    before = torch.random.get_rng_state()
    assert count_flops(fake_copy(net), inputs) == pytest.approx(expected, rel=tolerance)
    assert torch.equal(before, torch.random.get_rng_state())  # unchanged


def test_counting_flops_does_not_change_the_network() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    net[0].bias.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert count_flops(fake_copy(net), torch.ones(3, 4)) == 2 * 2 * 3 * 4 * 4
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
        assert type(value) is Tensor
    assert all(p.grad is None for p in net.parameters())


class NumpyNet(nn.Module):
    """A network that computes outside of PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.from_numpy(inputs.flatten(1).numpy() * 2))


def test_network_without_countable_flops_has_throughput_but_no_mfu(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="no speed/mfu, cannot count the FLOPs of NumpyNet"):
        rows = fit(tmp_path, Speed(), random_batches(3, 4), net=NumpyNet())
    assert rows[1]["speed/samples_per_second"] > 0
    assert not any("speed/mfu" in row or "speed/tflops" in row for row in rows.values())


def test_peak_is_measured_once_and_keeps_the_random_state() -> None:
    measured_peak_flops.cache_clear()
    before = torch.random.get_rng_state()
    peak = measured_peak_flops(torch.float32)
    assert torch.equal(before, torch.random.get_rng_state())
    assert 1e9 < peak < 1e15
    started = time.perf_counter()
    assert measured_peak_flops(torch.float32) == peak
    assert time.perf_counter() - started < 0.01


@pytest.mark.parametrize("peak", [0, -1.0, float("nan")])
def test_invalid_peak_is_reported(peak: float) -> None:
    with pytest.raises(ValueError, match="peak_tflops must be above 0"):
        Speed(peak)


def gradient_norms_of_plain_loop(
    batches: Any, parts: int = 1, precision: Any = None
) -> list[dict[str, float]]:
    """Return the norms of each SGD step over `parts` batches in a plain loop."""
    net, found = small_mlp(), []
    for start in range(0, len(batches), parts):
        net.zero_grad()
        for inputs, targets in batches[start : start + parts]:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
                logits = net(inputs)
            (F.cross_entropy(logits.float(), targets) / parts).backward()
        norms = {
            f"grad_norm/layers.{i}": torch.cat(
                [p.grad.flatten() for p in net.layers[i].parameters()]
            )
            for i in (1, 3)
        }
        norms["grad_norm/total"] = torch.cat(list(norms.values()))
        found.append({name: gradient.norm().item() for name, gradient in norms.items()})
        with torch.no_grad():
            for parameter in net.parameters():
                parameter -= 0.1 * parameter.grad
    return found


@pytest.mark.parametrize(
    ("parts", "options"),
    [
        (1, {}),
        (2, {"accumulate_grad_batches": 2}),
        (1, {"precision": "bf16-mixed"}),
        (2, {"accumulate_grad_batches": 2, "precision": "bf16-mixed", "gradient_clip_val": 100.0}),
    ],
)
def test_gradient_norms_equal_a_plain_loop(tmp_path: Path, parts: int, options: dict) -> None:
    batches = random_batches(6, 8)
    rows = fit(tmp_path, GradientNorms(), batches, **options)
    expected = gradient_norms_of_plain_loop(batches, parts, options.get("precision"))
    seen = [
        {name: value for name, value in rows[step].items() if name.startswith("grad_norm/")}
        for step in sorted(rows)
    ]
    assert len(seen) == len(expected) == 6 // parts
    for one, other in zip(seen, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_gradient_norms_are_taken_before_clipping(tmp_path: Path) -> None:
    free = fit(tmp_path / "free", GradientNorms(), random_batches(1, 8))
    clipped = fit(
        tmp_path / "clipped", GradientNorms(), random_batches(1, 8), gradient_clip_val=0.001
    )
    assert clipped[0]["grad_norm/total"] == free[0]["grad_norm/total"] > 0.01


def test_groups_are_blocks_and_other_children() -> None:
    size = {"num_layers": 2, "num_heads": 2, "dim": 16, "context": 8}
    assert list(parameter_groups(GPT(9, positions="learned", **size))) == [
        *("token_embedding", "position_embedding", "blocks.0", "blocks.1", "last_norm")
    ]
    numbered = [name.partition(".")[0] for name in parameter_groups(CNN(channels=[4, 8]))]
    assert numbered == ["features", "features", "head", "head"]
    net = MLPLM(9)
    grouped = [p for parameters in parameter_groups(net).values() for p in parameters]
    assert {id(p) for p in grouped} == {id(p) for p in net.parameters()}


class TwoRates(Classifier):
    def configure_optimizers(self) -> Any:
        layers = self.net.layers
        groups = [{"params": layers[1].parameters()}, {"params": layers[3].parameters(), "lr": 0.5}]
        return SGD(groups, lr=0.1)


def test_learning_rate_is_that_of_the_logged_step(tmp_path: Path, monkeypatch) -> None:
    def halved(self: Classifier) -> Any:
        made = SGD(self.parameters(), lr=0.8)
        schedule = torch.optim.lr_scheduler.ExponentialLR(made, 0.5)
        return {"optimizer": made, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    monkeypatch.setattr(Classifier, "configure_optimizers", halved)
    rows = fit(tmp_path, LearningRate(), random_batches(4, 4))
    rates = [rows[step]["optimizer/learning_rate"] for step in range(4)]
    assert rates == pytest.approx([0.8, 0.4, 0.2, 0.1])
    figure = curves_figure(read_metrics(tmp_path / "metrics.csv"), "val/loss", "min")
    (panel,) = [axes for axes in figure.axes if axes.get_title() == "learning rate"]
    assert list(panel.lines[0].get_ydata()) == rates
    monkeypatch.setattr(Classifier, "configure_optimizers", TwoRates.configure_optimizers)
    rows = fit(tmp_path / "two", LearningRate(), random_batches(1, 4))
    logged = {name: value for name, value in rows[0].items() if name.startswith("optimizer/")}
    assert logged == {"optimizer/learning_rate/0": 0.1, "optimizer/learning_rate/1": 0.5}


def test_memory_equals_the_resident_memory(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    rows = fit(tmp_path, Memory(), random_batches(2, 4))
    status = Path("/proc/self/status").read_text()
    kib = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])
    assert rows[1]["memory/process_gib"] == pytest.approx(kib / 2**20, rel=0.1)


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import train

    runs = tmp_path_factory.mktemp("monitored")
    flags = ("--trainer.max_epochs", 2, "--trainer.log_every_n_steps", 4, "--runs_dir", runs)
    quiet = ("--trainer.enable_progress_bar", "false")
    return train.main(["fit", "--config", str(TINY), *map(str, (*MONITOR, *flags, *quiet))])


@pytest.mark.slow
def test_every_logged_metric_is_documented(monitored: Path) -> None:
    callbacks = (Speed, LearningRate, GradientNorms, Memory)
    documented = [
        re.escape(name).replace("<group>", r"[\w.]+").replace("<n>", r"\d+")
        for callback in callbacks
        for name in re.findall(r"\| `([\w/<>]+)` \|", callback.__doc__)
    ]
    assert len(documented) == 4 + 2 + 2 + 4
    rows = rows_of(monitored / "metrics.csv")
    names = {
        name
        for row in rows.values()
        for name in row
        if not name.startswith(("train", "val", "test"))
    }
    names.remove("epoch")
    assert names
    for name in names:
        assert any(re.fullmatch(pattern, name) for pattern in documented), name
    for kind in ("speed/mfu", "optimizer/learning_rate", "grad_norm/total", "memory/process_gib"):
        assert [step for step, row in rows.items() if kind in row] == [3, 7, 11, 15]


def test_monitored_metrics_are_neither_results_nor_in_checkpoints(monitored: Path) -> None:
    assert "speed/" not in (monitored / "results.json").read_text().partition('"config"')[0]
    saved = torch.load(monitored / "checkpoints/last.ckpt", weights_only=True)
    (state,) = [state for state in saved["callbacks"].values() if "logged_rows" in state]
    assert {name.partition("/")[0] for name in state["metrics"]} <= {"train", "val"}


def test_monitoring_does_not_change_weights(run: Callable[..., Path], monitored: Path) -> None:
    flags = ("--trainer.max_epochs", 2, "--trainer.log_every_n_steps", 4)
    alone = run("fit", "--config", TINY, *flags)
    one, other = (
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for folder in (alone, monitored)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_fast_dev_run_works_without_logger(run: Callable[..., Path]) -> None:
    assert run("fit", "--config", TINY, *MONITOR, "--trainer.fast_dev_run", "true") is None
