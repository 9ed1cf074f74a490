"""Strategies that need no second process: plans, configs and refusals."""

import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from engine.checkpoint.reading import read_checkpoint
from engine.distributed.strategies import check_devices
from engine.errors import UserError
from modules.nets import GPT, RNNLM
from tests.support import ROOT, TINY


def test_tensor_parallel_plan_names_linear_layers_of_a_block() -> None:
    for activation, kv_heads in (("gelu", None), ("swiglu", 2)):
        net = GPT(50, 16, 2, 4, 32, activation=activation, num_kv_heads=kv_heads)
        for name, parts in net.tensor_parallel_plan().items():
            layer = net.blocks[0].get_submodule(name)
            assert isinstance(layer, torch.nn.Linear)
            if parts != "rows":
                assert layer.out_features % sum(parts) == 0
    assert not hasattr(RNNLM, "tensor_parallel_plan")


def test_sharded_checkpoint_that_would_execute_code_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'executed'}",)

    folder = tmp_path / "last.ckpt"
    folder.mkdir()
    (folder / ".metadata").write_bytes(pickle.dumps(Trap()))
    torch.save({"epoch": 0}, folder / "meta.pt")
    with pytest.raises(Exception, match=r"asks for posix\.system"):
        read_checkpoint(folder)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(("name", "stage"), [("zero2", 2), ("zero3", 3), ("offload", 2)])
def test_deepspeed_accepts_its_config(name: str, stage: int) -> None:
    path = ROOT / f"configs/trainer/deepspeed_{name}.yaml"
    config = yaml.safe_load(path.read_text())["trainer"]["strategy"]["init_args"]["config"]
    check_deepspeed(config)
    assert config["zero_optimization"]["stage"] == stage
    for wrong, match in (
        ({"zero_optimization": {"stage": 4}}, "Input should be 0, 1, 2, 3"),
        ({"zero_optimization": {"stage": stage, "overlap_com": True}}, "overlap_com"),
        ({"zero_allow_untested_optimiser": True}, "zero_allow_untested_optimiser"),
    ):
        with pytest.raises(Exception, match=match):
            check_deepspeed(config | wrong)


def check_deepspeed(config: dict) -> None:
    """Check a config with DeepSpeed's own class and for unknown keys, which that class ignores."""
    deepspeed = pytest.importorskip("deepspeed")
    from deepspeed.runtime import config as module
    from deepspeed.runtime import constants

    names = {value for value in vars(constants).values() if isinstance(value, str)}
    unknown = config.keys() - names - {"zero_optimization"}
    assert not unknown, f"unknown keys: {', '.join(unknown)}"
    module.DeepSpeedConfig({"train_micro_batch_size_per_gpu": 1, **config})
    assert deepspeed.__version__


def test_offload_with_tensor_parallelism_is_refused(refused) -> None:
    overlays = ("fsdp_offload", "tensor_parallel")
    stack = [word for n in overlays for word in ("--config", ROOT / f"configs/trainer/{n}.yaml")]
    message = refused("fit", "--config", TINY, *stack)
    assert "cpu_offload needs --trainer.strategy.tensor_parallel_size 1" in message


@pytest.mark.parametrize("name", ["zero2", "zero3", "offload"])
def test_deepspeed_on_a_cpu_is_refused(refused, name: str) -> None:
    overlay = ROOT / f"configs/trainer/deepspeed_{name}.yaml"
    message = refused("fit", "--config", TINY, "--config", overlay, "--trainer.accelerator", "cpu")
    assert "DeepSpeed needs GPUs" in message
    assert "fsdp.yaml" in message
    assert "trainer.accelerator is cpu" in message


def test_missing_deepspeed_is_reported(refused, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = refused("fit", "--config", TINY, "--trainer.strategy", "deepspeed_stage_2")
    assert "pip install" in message


@pytest.mark.parametrize(
    "strategy",
    ["deepspeed_stage_2", {"class_path": "lightning.pytorch.strategies.DeepSpeedStrategy"}],
)
def test_lightnings_deepspeed_strategy_is_refused(monkeypatch, strategy: str | dict) -> None:
    pytest.importorskip("deepspeed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    trainer = SimpleNamespace(strategy=strategy, accelerator="auto")
    with pytest.raises(UserError, match=r"use --config .*deepspeed_zero2\.yaml"):
        check_devices(trainer, None)
    trainer.strategy = {"class_path": "engine.distributed.DeepSpeed"}
    check_devices(trainer, None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpu_is_reported(refused) -> None:
    overlay = ROOT / "configs/trainer/gpu.yaml"
    assert "finds no GPU" in refused("fit", "--config", TINY, "--config", overlay)
