"""One process is two or four: losses, metrics, weights, checkpoints, whatever is shared."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from safetensors.torch import load_file

import export
import train
from engine.checkpoint import sharded as sharded_checkpoint
from engine.checkpoint.reading import check_checkpoint, read_checkpoint
from engine.checkpoint.resuming import checkpoint_of
from engine.distributed.strategies import check_devices
from modules.inference.pretrained import open_language_model
from modules.nets import GPT as TheGPT
from modules.nets import RNNLM
from tests.support import many_devices
from tests.support.many_devices import CRASH, EXPERIMENTS, GPT, ROOT
from tests.support.metrics import metrics
from tests.support.resume import Crash, assert_equal_nested

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all experiments as one process ran them, and all runs of several."""
    folder = tmp_path_factory.mktemp("many-devices")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, arguments in EXPERIMENTS.items():
            train.main(["fit", *map(str, arguments), "--experiment", name])
        begun = [str(a) for a in ("fit", *GPT, *CRASH, "--experiment", "begun-by-one")]
        with pytest.raises(Crash):
            train.main(begun)
        for number in many_devices.RUNS:
            many_devices.start(number, folder)
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "checkpoints/last.ckpt")["state_dict"]


ALL = [name for runs in many_devices.RUNS.values() for name in runs]


@slow
@pytest.mark.parametrize("name", [name for name in ALL if name.split("-")[0] in EXPERIMENTS])
def test_many_processes_are_one(there: Path, name: str) -> None:
    one, many = there / "runs" / name.split("-")[0] / "001", there / "runs" / name / "001"
    expected, seen = metrics(one), metrics(many)
    assert expected.keys() == seen.keys()
    assert len(expected) > 10
    # bfloat16: the norms' gains are rounded, or the gradients of which Muon makes its steps.
    rounded = {"halves": 2e-2, "muon": 1e-3}.get(name.split("-")[0], 1e-5)
    for key, value in expected.items():
        counted = key[0].split("/")[1] in ("accuracy", "f1", "precision", "recall")
        exact = counted and not key[0].startswith("train")
        assert seen[key] == pytest.approx(value, rel=1e-6 if exact else rounded), key
    if rounded == 1e-5:
        a, b = weights(one), weights(many)
        assert a.keys() == b.keys()
        # Adam divides by the gradient's size: what is about zero moves by its rounding.
        assert max((a[key] - b[key]).abs().max() for key in a) < 1e-4
    results = [json.loads((run / "results.json").read_text()) for run in (one, many)]
    assert results[0]["net"] == results[1]["net"]
    assert results[0]["parameters"] == results[1]["parameters"]


@slow
def test_all_processes_have_parted_when_they_end(there: Path) -> None:
    joined = {path.name: json.loads(path.read_text()) for path in there.glob("joined-*.json")}
    assert joined == {f"joined-{n}-{rank}.json": False for n in (2, 4) for rank in range(n)}


@slow
def test_batch_norm_is_the_same_sharded_as_with_a_copy_for_each(there: Path) -> None:
    ddp, fsdp = (metrics(there / f"runs/batch-norm-{name}/001") for name in ("ddp", "fsdp"))
    assert ddp.keys() == fsdp.keys()
    assert all(fsdp[key] == pytest.approx(ddp[key], abs=1e-5) for key in ddp)


@slow
@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("stopped-fsdp", "gpt-fsdp"),
        ("stopped-folder", "gpt-folder"),
        ("stopped-tp", "gpt-tp"),
        ("stopped-mesh", "gpt-mesh"),
    ],
)
def test_a_sharded_run_that_goes_on_is_the_run_that_never_stopped(
    there: Path, name: str, whole: str
) -> None:
    runs = there / "runs"
    assert [path.name for path in (runs / name).iterdir()] == ["001"]
    assert metrics(runs / name / "001") == metrics(runs / whole / "001")
    assert_equal_nested(weights(runs / name / "001"), weights(runs / whole / "001"))


@slow
def test_a_run_of_one_process_goes_on_in_two(there: Path) -> None:
    one, other = metrics(there / "runs/gpt/001"), metrics(there / "runs/begun-by-one/001")
    assert one.keys() == other.keys()
    assert all(other[key] == pytest.approx(one[key], rel=1e-5) for key in one)


@slow
@pytest.mark.parametrize("name", ["gpt-fsdp", "gpt-tp", "gpt-mesh"])
def test_a_run_of_many_processes_goes_on_in_one(
    there: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(there)
    alone = ("--trainer.devices", 1, "--trainer.strategy", "auto", "--trainer.max_steps", 10)
    steady = ("--trainer.val_check_interval", 2, "--runs_dir", there / f"longer-{name}")
    (there / f"longer-{name}").mkdir()
    (there / f"longer-{name}" / name).symlink_to(there / "runs" / name)
    run = train.main([str(a) for a in ("fit", "--resume", f"runs/{name}/001", *alone, *steady)])
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 10
    assert {value["step"].item() for value in state["optimizer_states"][0]["state"].values()} == {
        10.0
    }


@slow
@pytest.mark.parametrize("name", ["gpt-folder", "gpt-tp-folder", "gpt-mesh-folder"])
def test_a_folder_of_shards_becomes_the_safetensors_of_one_process(
    there: Path, tmp_path: Path, name: str
) -> None:
    written = {}
    for run in (name, "gpt"):
        path = there / "runs" / run / "001/checkpoints/best.ckpt"
        assert path.is_dir() == (run == name)
        options = ("--checkpoint", path, "--format", "safetensors", "--output", tmp_path / run)
        export.main([str(option) for option in options])
        written[run] = load_file(tmp_path / run / "model.safetensors")
    assert written[name].keys() == written["gpt"].keys()
    for key, weight in written["gpt"].items():
        assert written[name][key].shape == weight.shape
        assert (written[name][key] - weight).abs().max() < 1e-4


@slow
@pytest.mark.parametrize(
    ("name", "matrices", "embeddings"),
    [
        ("gpt-folder", [72, 72], 2),
        ("gpt-tp-folder", [72, 72], 1),
        ("gpt-mesh-folder", [36, 36, 36, 36], 2),  # cut in two, and each half sharded
    ],
)
def test_every_process_has_its_share_of_the_matrices(
    there: Path, name: str, matrices: list[int], embeddings: int
) -> None:
    stored = sharded_checkpoint._index(there / "runs" / name / "001/checkpoints/last.ckpt")
    shares = {
        key: [chunk.sizes[0] for chunk in found.chunks]
        for key, found in stored.state_dict_metadata.items()
        if key.startswith("state_dict.net")
    }
    assert shares["state_dict.net.blocks.0.attention.qkv.weight"] == matrices
    assert len(shares["state_dict.net.token_embedding.weight"]) == embeddings


@slow
def test_a_folder_of_shards_becomes_a_checkpoint_that_writes_text(
    there: Path, tmp_path: Path
) -> None:
    path = there / "runs/gpt-folder/001/checkpoints/best.ckpt"
    for kind in ("checkpoint", "huggingface"):
        options = ("--checkpoint", path, "--format", kind, "--output", tmp_path / kind)
        export.main([str(option) for option in options])
    one = open_language_model(there / "runs/gpt/001/checkpoints/best.ckpt")
    again = open_language_model(tmp_path / "checkpoint/model.ckpt")
    tokens = torch.arange(16)[None]
    assert torch.allclose(again(tokens)[0], one(tokens)[0], atol=1e-3)
    assert again.generate("def ", 20, seed=1) == one.generate("def ", 20, seed=1)
    assert (tmp_path / "huggingface/model.safetensors").is_file()


@slow
def test_a_folder_of_shards_is_validated_where_it_was_made(there: Path) -> None:
    (run,) = (there / "runs/validate-folder").iterdir()
    found = json.loads((run / "results.json").read_text())["metrics"]
    expected = json.loads((there / "runs/gpt/001/results.json").read_text())["metrics"]
    assert found["val/loss"] == pytest.approx(expected["val/loss"], rel=1e-5)


@slow
def test_a_folder_of_shards_begins_a_new_run_of_one_process(
    there: Path, run: Callable[..., Path]
) -> None:
    path = there / "runs/gpt-folder/001/checkpoints/best.ckpt"
    still = ("--model.optimizer", "SGD", "--model.optimizer.lr", 0.0, "--model.lr_scheduler")
    new = run("fit", *GPT, *still, "null", "--init_from", path, "--trainer.max_steps", 4)
    expected = weights(there / "runs/gpt-folder/001")
    assert_equal_nested({name: weights(new)[name] for name in expected}, expected)


@slow
def test_a_folder_of_shards_is_refused_where_it_can_not_be_read(there: Path, refused) -> None:
    path = there / "runs/gpt-folder/001/checkpoints/best.ckpt"
    paragraph = refused("validate", *GPT, "--ckpt_path", path)
    assert "fsdp.yaml" in paragraph
    assert "export.py" in paragraph


@slow
def test_a_folder_with_a_share_cut_off_gives_way_to_the_best(there: Path, tmp_path: Path) -> None:
    shutil.copytree(there / "runs/gpt-folder/001", tmp_path / "run")
    last = tmp_path / "run/checkpoints/last.ckpt"
    assert checkpoint_of(tmp_path / "run", check_checkpoint) == last
    share = last / "__1_0.distcp"
    share.write_bytes(share.read_bytes()[:-100])
    best = tmp_path / "run/checkpoints/best.ckpt"
    assert checkpoint_of(tmp_path / "run", check_checkpoint) == best
    # Killed between the two steps by which folders change places.
    shutil.rmtree(last)
    best.rename(last.with_name("last.ckpt.old"))
    assert checkpoint_of(tmp_path / "run", check_checkpoint) == last.with_name("last.ckpt.old")


@slow
@pytest.mark.parametrize("name", ["refused-lstm-tp", "refused-heads"])
def test_what_can_not_be_cut_is_refused_in_one_sentence(there: Path, name: str) -> None:
    told = json.loads((there / "told-2.json").read_text())
    assert told.keys() == {"refused-lstm-tp", "refused-heads"}
    assert told[name]["code"] == 2
    assert told[name]["said"].count("train.py: error: ") == 1
    assert ("fsdp.yaml" if "lstm" in name else "parts of 3") in told[name]["said"]
    assert not list((there / "runs").glob(f"{name}/*"))


@slow
@pytest.mark.parametrize("number", many_devices.RUNS)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "mesh"])
def test_a_step_is_that_of_the_mean_over_all_tokens_of_all_processes(
    there: Path, strategy: str, number: int
) -> None:
    one = many_devices.train_padded()
    many = torch.load(there / f"padded-{number}.pt", weights_only=True)[strategy]
    assert max((one[name] - many[name]).abs().max() for name in one) < 1e-5


# What needs no second process.


def test_the_plan_of_a_net_names_matrices_of_its_blocks() -> None:
    for activation, kv_heads in (("gelu", None), ("swiglu", 2)):
        net = TheGPT(50, 16, 2, 4, 32, activation=activation, num_kv_heads=kv_heads)
        for name, parts in net.tensor_parallel_plan().items():
            layer = net.blocks[0].get_submodule(name)
            assert isinstance(layer, torch.nn.Linear)
            if parts != "rows":
                assert layer.out_features % sum(parts) == 0
    assert not hasattr(RNNLM, "tensor_parallel_plan")


def test_an_index_that_brings_code_along_is_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'exploded'}",)

    folder = tmp_path / "last.ckpt"
    folder.mkdir()
    (folder / ".metadata").write_bytes(pickle.dumps(Bomb()))
    torch.save({"epoch": 0}, folder / "meta.pt")
    with pytest.raises(Exception, match=r"asks for posix\.system"):
        read_checkpoint(folder)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_takes_its_config(stage: int) -> None:
    path = ROOT / f"configs/trainer/deepspeed_zero{stage}.yaml"
    told = yaml.safe_load(path.read_text())["trainer"]["strategy"]["init_args"]["config"]
    check_deepspeed(told)
    assert told["zero_optimization"]["stage"] == stage
    for wrong, match in (
        ({"zero_optimization": {"stage": 4}}, "Input should be 0, 1, 2, 3"),
        ({"zero_optimization": {"stage": stage, "overlap_com": True}}, "overlap_com"),
        ({"zero_allow_untested_optimiser": True}, "zero_allow_untested_optimiser"),
    ):
        with pytest.raises(Exception, match=match):
            check_deepspeed(told | wrong)


def check_deepspeed(config: dict) -> None:
    """What DeepSpeed's own class finds wrong, and what it does not look at: unknown names."""
    deepspeed = pytest.importorskip("deepspeed")
    from deepspeed.runtime import config as module
    from deepspeed.runtime import constants

    names = {value for value in vars(constants).values() if isinstance(value, str)}
    unknown = config.keys() - names - {"zero_optimization"}
    assert not unknown, f"DeepSpeed knows no {', '.join(unknown)}"
    module.DeepSpeedConfig({"train_micro_batch_size_per_gpu": 1, **config})
    assert deepspeed.__version__


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_on_a_cpu_is_refused(refused, stage: int) -> None:
    overlay = ROOT / f"configs/trainer/deepspeed_zero{stage}.yaml"
    tiny = ROOT / "tests/configs/digits/tiny.yaml"
    told = refused("fit", "--config", tiny, "--config", overlay, "--trainer.accelerator", "cpu")
    assert "GPUs only" in told
    assert "fsdp.yaml" in told
    assert "the CPU was asked for" in told


def test_deepspeed_that_is_not_installed_is_named(refused, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    tiny = ROOT / "tests/configs/digits/tiny.yaml"
    told = refused("fit", "--config", tiny, "--trainer.strategy", "deepspeed_stage_2")
    assert "pip install" in told


@pytest.mark.parametrize(
    "strategy",
    ["deepspeed_stage_2", {"class_path": "lightning.pytorch.strategies.DeepSpeedStrategy"}],
)
def test_lightnings_own_deepspeed_gives_way_to_ours(monkeypatch, strategy: str | dict) -> None:
    pytest.importorskip("deepspeed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    told = SimpleNamespace(strategy=strategy, accelerator="auto")
    with pytest.raises(MisconfigurationException, match=r"take --config .*deepspeed_zero2\.yaml"):
        check_devices(told, None)
    told.strategy = {"class_path": "engine.distributed.DeepSpeed"}
    check_devices(told, None)


@pytest.fixture(scope="module")
def zero(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what DeepSpeed wrote."""
    pytest.importorskip("deepspeed")
    folder = tmp_path_factory.mktemp("zero")
    command = [sys.executable, ROOT / "tests/write_zero.py", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@slow
@pytest.mark.parametrize("stage", [2, 3])
def test_a_folder_of_deepspeed_becomes_safetensors_and_a_checkpoint(
    zero: Path, tmp_path: Path, stage: int
) -> None:
    written = zero / f"zero{stage}"
    for kind in ("safetensors", "checkpoint"):
        options = ("--checkpoint", written, "--format", kind, "--output", tmp_path / kind)
        export.main([str(option) for option in options])
    task = open_language_model(tmp_path / "checkpoint/model.ckpt")
    seen = torch.load(zero / "seen.pt", weights_only=True)[f"zero{stage}"]
    with torch.no_grad():
        assert torch.allclose(task(torch.arange(8)[None])[0], seen, atol=1e-5)
    stored = load_file(tmp_path / "safetensors/model.safetensors")
    assert torch.equal(stored["last_norm.weight"], task.net.last_norm.weight)
    assert stored.keys() == dict(task.net.named_parameters()).keys()


@slow
def test_a_folder_of_deepspeed_is_refused_by_other_strategies(zero: Path, refused) -> None:
    told = refused("validate", *GPT, "--ckpt_path", zero / "zero2")
    assert "deepspeed_zero2.yaml" in told
    assert "--format checkpoint" in told


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(refused) -> None:
    tiny, gpu = ROOT / "tests/configs/digits/tiny.yaml", ROOT / "configs/trainer/gpu.yaml"
    assert "finds no GPU here" in refused("fit", "--config", tiny, "--config", gpu)
