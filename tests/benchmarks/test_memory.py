"""Memory by formula against tensors saved by autograd and the peak of the CPU allocator."""

import argparse
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from benchmarks import memory
from benchmarks.memory import Job, SavedBytes
from benchmarks.memory.__main__ import main as memory_main
from benchmarks.memory.states import dtype_of_size
from engine.activation_checkpointing import checkpoint_activations
from modules.nets import CNN, GPT, MLP, RNNLM
from tests.support import ROOT
from tests.support.synthetic_data import make_shards

SHAPE = {"vocab_size": 300, "context": 64, "num_layers": 2, "num_heads": 4, "dim": 128}
TOKENS = torch.zeros(2, 64, dtype=torch.int64)
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true")


def meta(kind: type[nn.Module], **arguments) -> nn.Module:
    with torch.device("meta"):
        return kind(**arguments)


def gpt(**options) -> GPT:
    return meta(GPT, **SHAPE | options)


def total(parts: memory.Parts) -> float:
    return sum(parts.values())


def kept_in_truth(job: Job, make: Callable[[], nn.Module], inputs: torch.Tensor) -> int:
    """Return the bytes that autograd saves in a forward pass of a real network with its loss."""
    dtype = torch.bfloat16 if job.precision == "bf16-true" else torch.float32
    net = make().to(dtype)
    mixed = job.precision == "bf16-mixed"
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=mixed, cache_enabled=False)
    with SavedBytes(net) as saved, autocast:
        logits = net(inputs)
        logits = logits[0] if isinstance(logits, tuple) else logits
        targets = torch.zeros(logits.shape[:-1], dtype=torch.int64)
        F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten())
    return sum(saved.sizes)


VARIANTS = [
    dict(zip(("attention", "dropout", "positions", "norm", "activation", "num_kv_heads"), v))  # noqa: B905
    for v in itertools.product(
        ("sdpa", "eager", "auto"),
        (0.0, 0.2),
        ("learned", "rotary"),
        ("layer", "rms"),
        ("gelu", "swiglu"),
        (None, 2),
    )
]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_gpt_formula_equals_tensors_saved_by_autograd(precision: str) -> None:
    # Every third: each variant is tested in one precision, each pair of options in all.
    for variant in VARIANTS[PRECISIONS.index(precision) :: len(PRECISIONS)]:
        if variant["attention"] == "sdpa" and variant["dropout"]:
            continue  # counted, not computed by formula: PyTorch uses a separate implementation
        job = Job(gpt(**variant), 3, precision, inputs=TOKENS)
        counted = total(memory.counted_activations(job))
        # 0.3 %: rotary angles and other small tensors of each layer
        assert total(memory.gpt_activations(job)) == pytest.approx(counted, rel=0.003), variant


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("every", [1, 2])
def test_formula_of_checkpointed_blocks_equals_tensors_saved_by_autograd(
    precision: str, every: int
) -> None:
    for variant in VARIANTS[::7]:
        if variant["attention"] == "sdpa" and variant["dropout"]:
            continue
        job = Job(
            gpt(**variant),
            3,
            precision,
            inputs=TOKENS,
            checkpointing="full",
            checkpoint_every=every,
        )
        counted = total(memory.counted_activations(job))
        parts = memory.gpt_activations(job)
        if every == 1:  # blocks keep the rotary angles, which autograd does not save
            parts["positions"] = 0.0
        assert total(parts) == pytest.approx(counted, rel=0.003), variant


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("mode", ["full", "selective"])
def test_checkpointing_allocates_what_the_formula_says(precision: str, mode: str) -> None:
    """Selectively saved outputs are kept outside of autograd: measure the allocator."""
    allocated = []
    for checkpointing in (None, mode):
        job = Job(gpt(attention="sdpa"), 3, precision, checkpointing=checkpointing)
        net = GPT(**SHAPE, attention="sdpa").to(dtype_of_size(job.weight_bytes))
        if checkpointing:
            checkpoint_activations(net, checkpointing)
        autocast = torch.autocast("cpu", torch.bfloat16, job.precision == "bf16-mixed", False)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded, autocast:
            logits, _ = net(TOKENS[:1].repeat(3, 1))
        events = recorded.profiler.kineto_results.events()
        size = sum(event.nbytes() for event in events if event.name() == "[memory]")
        parts = memory.gpt_activations(job)
        allocated.append((size, total(parts) - parts["log-probabilities"] - parts["tokens"]))
        del logits
    measured, formula = (a - b for a, b in zip(*allocated, strict=True))
    assert formula > 0
    assert measured == pytest.approx(formula, rel=0.03)  # random states and other small tensors


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_fake_tensors_are_counted_like_real_ones(
    precision: str, dropout: float, attention: str
) -> None:
    options = {"attention": attention, "dropout": dropout}
    job = Job(gpt(**options), 3, precision, inputs=TOKENS)
    truth = kept_in_truth(job, lambda: GPT(**SHAPE | options), TOKENS[:1].repeat(3, 1))
    assert total(memory.activations(job)) == pytest.approx(truth, rel=0.003)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(
    ("kind", "arguments", "inputs"),
    [
        pytest.param(MLP, {}, torch.zeros(6, 1, 28, 28), id="MLP"),
        pytest.param(CNN, {}, torch.zeros(6, 1, 28, 28), id="CNN"),
        pytest.param(RNNLM, {"vocab_size": 50}, TOKENS[:1].repeat(6, 1), id="LSTM"),
        pytest.param(RNNLM, {"vocab_size": 50, "cell": "gru"}, TOKENS[:1].repeat(6, 1), id="GRU"),
    ],
)
def test_saved_tensors_of_any_network_are_counted_without_computing(
    precision: str, kind: type[nn.Module], arguments: dict, inputs: torch.Tensor
) -> None:
    job = Job(meta(kind, **arguments), len(inputs), precision, inputs=inputs[:2])
    truth = kept_in_truth(job, lambda: kind(**arguments), inputs)
    # 1 %: recurrent kernels round their workspace up; everything else is exact
    rel = 0.01 if kind is RNNLM else 1e-6
    assert total(memory.activations(job)) == pytest.approx(truth, rel=rel)


def test_only_activations_grow_with_rows() -> None:
    small, large = (Job(gpt(), rows) for rows in (4, 8))
    assert memory.states(small) == memory.states(large)
    assert total(memory.activations(large)) == pytest.approx(2 * total(memory.activations(small)))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda p: torch.optim.AdamW(p, lr=0.1, fused=True), 8),
        (lambda p: torch.optim.SGD(p, lr=0.1), 0),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 4),
    ],
    ids=["AdamW", "SGD", "momentum"],
)
def test_optimizer_bytes_are_found_by_one_step(make: Callable, expected: int) -> None:
    job = Job(gpt(), 1, optimizer=make)
    numbers = sum(4 for _ in job.net.parameters()) if expected == 8 else 0  # AdamW's step counters
    assert memory.optimizer_bytes(job) == expected * job.parameters + numbers


def test_states_equal_figure_1_of_the_zero_paper() -> None:
    """Rajbhandari et al. 2020, figure 1: 7.5 B parameters, Adam, 64 devices, mixed precision."""
    net = nn.Module()
    net.weight = nn.Parameter(torch.empty(7_500_000_000, device="meta"))
    gigabytes = {}
    for strategy in ("zero2", "zero3"):
        parts = memory.states(Job(net, 1, "bf16-mixed", strategy=strategy, devices=64))
        gigabytes[strategy] = sum(parts[k] for k in ("weights", "gradients", "optimizer")) / 1e9
    assert gigabytes["zero2"] == pytest.approx(16.6, abs=0.05)
    assert gigabytes["zero3"] == pytest.approx(1.9, abs=0.05)


def test_offload_leaves_the_bytes_of_the_zero_offload_paper() -> None:
    """Ren et al. 2021, section 3: of 16 bytes per parameter, 2 stay on the GPU, weights in bf16."""
    jobs = {
        strategy: Job(gpt(), 1, "bf16-mixed", strategy=strategy, devices=1)
        for strategy in ("zero2", "zero2_offload", "fsdp", "fsdp_offload")
    }
    host = {name: total(memory.host_states(job)) for name, job in jobs.items()}
    counters = 4 * sum(1 for _ in jobs["zero2"].net.parameters())  # of AdamW's steps
    parameters = jobs["zero2"].parameters
    assert host["zero2_offload"] == pytest.approx(14 * parameters + counters)
    assert host["fsdp_offload"] == pytest.approx(16 * parameters + counters)
    for name in ("zero2", "fsdp"):
        assert host[name] == 0
        on_device, offloaded = memory.states(jobs[name]), memory.states(jobs[f"{name}_offload"])
        assert total(on_device) == total(offloaded) + host[f"{name}_offload"]
        assert memory.peak(jobs[f"{name}_offload"]) < memory.peak(jobs[name])


@pytest.mark.parametrize("strategy", ["fsdp", "zero2", "zero3", "tensor_parallel"])
def test_more_devices_never_need_more_memory_per_device(strategy: str) -> None:
    states = [
        total(memory.states(Job(gpt(), 4, strategy=strategy, devices=n))) for n in (1, 2, 4, 8)
    ]
    assert states == sorted(states, reverse=True)
    assert states[0] > states[-1]


def test_ddp_adds_gradient_buckets_to_single_device_memory() -> None:
    one, two = (Job(gpt(), 4, strategy=s, devices=n) for s, n in (("single", 1), ("ddp", 2)))
    assert total(memory.states(two)) - total(memory.states(one)) == 4 * one.parameters


def test_tensor_parallel_shards_blocks_but_not_residual_stream_and_embeddings() -> None:
    whole, cut = (
        Job(gpt(attention="sdpa"), 4, strategy=s, devices=n)
        for s, n in (("single", 1), ("tensor_parallel", 4))
    )
    n = 4 * 64 * 128
    stats = 4 * 64 * 16
    # 4n of a block's 16n stay on every device: the inputs of norms and of sharded matrices.
    kept = memory.activations(cut)["blocks"] / 2
    assert kept == pytest.approx(4 * (4 * n + 12 * n / 4) + stats + 4 * 4 * 4 * 64 / 4)
    tables = (300 + 64) * 128
    assert total(memory.states(cut)) > 16 * tables
    assert total(memory.states(cut)) < 0.45 * total(memory.states(whole))


def test_formula_equals_korthikanti_up_to_norm_statistics() -> None:
    """Per layer s·b·h·(34 + 5 a s / h) bytes: Korthikanti et al. 2022, equation 1."""
    net = meta(
        GPT, vocab_size=300, context=512, num_layers=1, num_heads=16, dim=1024,
        dropout=0.1, attention="eager",
    )  # fmt: skip
    ours = memory.activations(Job(net, 2, "bf16-true", device="cuda"))["blocks"]
    n = 2 * 512 * 1024
    theirs = n * (34 + 5 * 16 * 512 / 1024)
    # Korthikanti et al. omit the statistics of the norms; everything else is equal.
    assert ours - 2 * 8 * 2 * 512 == theirs


# The command.


@pytest.fixture
def text_config(tmp_path: Path) -> Path:
    """Return the config of a small GPT on synthetic shards."""
    make_shards(tmp_path / "shards")
    net = {"num_layers": 2, "num_heads": 2, "dim": 64}
    config = {
        "model": {
            "class_path": "modules.LanguageModel",
            "init_args": {"net": {"class_path": "modules.nets.GPT", "init_args": net}},
        },
        "data": {
            "class_path": "datamodules.TokenShards",
            "init_args": {"folder": str(tmp_path / "shards"), "context": 32, "batch_size": 8},
        },
    }
    (tmp_path / "gpt.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "gpt.yaml"


@pytest.fixture
def printed(capsys: pytest.CaptureFixture) -> Callable[..., str]:
    def printed(*arguments: object) -> str:
        memory_main([*map(str, arguments)])
        return capsys.readouterr().out

    return printed


FULL, SELECTIVE = (
    f"--trainer.callbacks=[{{class_path: callbacks.ActivationCheckpointing, "
    f"init_args: {{mode: {mode}}}}}]"
    for mode in ("full", "selective")
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "options"),
    [
        pytest.param("32-true", (), id="32-true"),
        pytest.param("bf16-mixed", (), id="bf16-mixed"),
        pytest.param("32-true", (FULL, "--model.loss_chunk_size=16"), id="full, chunks"),
        pytest.param("bf16-mixed", (FULL, "--model.loss_chunk_size=16"), id="bf16, full, chunks"),
        pytest.param("32-true", (SELECTIVE, "--model.loss_chunk_size=16"), id="selective, chunks"),
    ],
)
def test_formula_agrees_with_measured_training(
    text_config: Path, precision: str, options: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    settings = argparse.Namespace(
        devices=1, strategy="single", device="cpu", precision=precision, vocab_size=None
    )
    arguments = ["--config", str(text_config), *options]
    job, _ = memory.job_from(arguments, settings)
    measured = memory.measure(arguments, job, compiles=True)
    states = memory.states(job)
    assert states["weights"] == measured["weights"]
    assert states["optimizer"] == measured["optimizer"]
    if SELECTIVE not in options:  # outputs saved selectively are not saved by autograd
        assert total(memory.activations(job)) == pytest.approx(measured["activations"], rel=0.003)
    # 5 %: the formula omits batches and temporary buffers of kernels
    assert memory.peak(job) == pytest.approx(measured["peak"], rel=0.05)


@pytest.mark.slow
def test_image_network_agrees_with_measured_training(
    monkeypatch: pytest.MonkeyPatch, printed: Callable
) -> None:
    monkeypatch.chdir(ROOT)
    output = printed("--config", "configs/digits/cnn.yaml", "--measure")
    found = {
        name: float(error) for name, error in re.findall(r"│ (\w+) .*│\s+([+-][\d.]+)% │", output)
    }
    assert abs(found["weights"]) == abs(found["optimizer"]) == abs(found["activations"]) == 0
    # 15 %: temporary outputs are estimated by the largest saved tensor
    assert abs(found["peak"]) < 15


def test_table_lists_every_part(text_config: Path, printed: Callable[..., str]) -> None:
    output = printed("--config", text_config, "--devices", 2, "--strategy", "fsdp")
    for part in ("weights", "gradients", "optimizer", "gathered weights", "blocks", "peak"):
        assert part in output
    assert "fsdp, 4 rows per device" in output


def test_vocab_size_replaces_missing_data(printed: Callable[..., str]) -> None:
    config = ROOT / "configs/openwebtext/gpt2_124m.yaml"
    output = printed("--config", config, "--vocab_size", 50304, "--devices", 8)
    assert "124,3" in output  # parameters, without biases and with 47 tokens more than GPT-2 has
    assert "ddp, 12 rows per device, bf16-mixed, cuda" in output
    flags = ("--", "--model.net.num_layers", 24, "--data.batch_size", 16)
    more = printed("--config", config, "--vocab_size", 50304, "--devices", 8, *flags)
    assert "2 rows per device" in more


def test_user_errors_are_one_line(text_config: Path, capsys: pytest.CaptureFixture) -> None:
    for arguments, message in {
        (): "pass --config FILE",
        ("--config", text_config, "--devices", 0): "--devices must be at least 1, got 0",
        ("--config", text_config, "--strategy", "fsdp"): "needs several devices",
        ("--config", text_config, "--strategy", "single", "--devices", 2): "needs --devices 1",
        ("--config", text_config, "--devices", 3): "batch_size 8 is not divisible by 3 devices",
        ("--config", text_config, "--devices", 2, "--measure"): "omit --devices",
        ("--config", ROOT / "configs/openwebtext/gpt2_124m.yaml"): "create token shards first",
        ("--config", text_config, "--", "--model.net.num_layer", 3): "num_layer",
    }.items():
        with pytest.raises(SystemExit) as exit:
            memory_main([*map(str, arguments)])
        assert exit.value.code == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error


@pytest.mark.slow
def test_scaling_page_contains_the_current_table() -> None:
    page = (ROOT / "docs/scaling.md").read_text()
    assert memory.plan() in page


@pytest.mark.slow
def test_every_plan_fits_three_quarters_of_device_memory() -> None:
    for size, machine, devices, strategy, rows, accumulate, recomputed in memory.PLAN:
        gigabytes = re.search(r"(\d+) GB", machine)
        count = [int(n) for n in re.findall(r"(\d+) x", machine)]
        if gigabytes is None:
            assert devices == 1
            continue
        assert devices == torch.tensor(count).prod()
        job = memory.planned(size, devices, strategy, rows, accumulate, recomputed)
        assert (
            memory.peak(job) < 0.75 * int(gigabytes[1]) * 1e9
        )  # the rest is for fragmentation and kernels
