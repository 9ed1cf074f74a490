"""Two and four processes equal one: losses, metrics, weights, checkpoints, for every strategy."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import export
import train
from engine.checkpoint import sharded as sharded_checkpoint
from engine.checkpoint.reading import check_checkpoint, read_checkpoint
from engine.checkpoint.resuming import checkpoint_of
from modules.inference.pretrained import open_language_model
from tests.support import many_devices
from tests.support.many_devices import CRASH, EXPERIMENTS, GPT
from tests.support.metrics import metrics
from tests.support.resume import Crash, assert_equal_nested

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def results_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all experiments run by one process, and all runs of several processes."""
    folder = tmp_path_factory.mktemp("many-devices")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, arguments in EXPERIMENTS.items():
            train.main(["fit", *map(str, arguments), "--experiment", name])
        interrupted = [str(a) for a in ("fit", *GPT, *CRASH, "--experiment", "started-by-one")]
        with pytest.raises(Crash):
            train.main(interrupted)
        for number in many_devices.RUNS:
            many_devices.start(number, folder)
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "checkpoints/last.ckpt")["state_dict"]


ALL = [name for runs in many_devices.RUNS.values() for name in runs]


@slow
@pytest.mark.parametrize("name", [name for name in ALL if name.split("-")[0] in EXPERIMENTS])
def test_several_processes_equal_one(results_folder: Path, name: str) -> None:
    one, many = (
        results_folder / "runs" / name.split("-")[0] / "001",
        results_folder / "runs" / name / "001",
    )
    expected, seen = metrics(one), metrics(many)
    assert expected.keys() == seen.keys()
    assert len(expected) > 10
    # bfloat16 rounds the gains of norms, or the gradients from which Muon computes its steps.
    tolerance = {"bf16": 2e-2, "muon": 1e-3}.get(name.split("-")[0], 1e-5)
    for key, value in expected.items():
        counted = key[0].split("/")[1] in ("accuracy", "f1", "precision", "recall")
        exact = counted and not key[0].startswith("train")
        # A calibration error is a difference of numbers near 1, each rounded to 6e-8.
        limits = {"rel": 1e-6} if exact else {"rel": tolerance, "abs": 1e-6}
        assert seen[key] == pytest.approx(value, **limits), key
    if tolerance == 1e-5:
        a, b = weights(one), weights(many)
        assert a.keys() == b.keys()
        # Adam divides by the gradient's size, so rounding moves weights with tiny gradients.
        assert max((a[key] - b[key]).abs().max() for key in a) < 1e-4
    results = [json.loads((run / "results.json").read_text()) for run in (one, many)]
    assert results[0]["net"] == results[1]["net"]
    assert results[0]["parameters"] == results[1]["parameters"]


@slow
def test_process_group_is_destroyed_at_exit(results_folder: Path) -> None:
    joined = {
        path.name: json.loads(path.read_text()) for path in results_folder.glob("joined-*.json")
    }
    assert joined == {f"joined-{n}-{rank}.json": False for n in (2, 4) for rank in range(n)}


@slow
def test_batch_norm_is_equal_under_fsdp_and_ddp(results_folder: Path) -> None:
    ddp, fsdp = (
        metrics(results_folder / f"runs/batch-norm-{name}/001") for name in ("ddp", "fsdp")
    )
    assert ddp.keys() == fsdp.keys()
    assert all(fsdp[key] == pytest.approx(ddp[key], abs=1e-5) for key in ddp)


@slow
@pytest.mark.parametrize(
    ("name", "uninterrupted"),
    [
        ("stopped-fsdp", "gpt-fsdp"),
        ("stopped-folder", "gpt-folder"),
        ("stopped-tp", "gpt-tp"),
        ("stopped-adapted", "adapted-fsdp"),
        ("stopped-mesh", "gpt-mesh"),
    ],
)
def test_resume_of_a_sharded_run_is_bit_exact(
    results_folder: Path, name: str, uninterrupted: str
) -> None:
    runs = results_folder / "runs"
    assert [path.name for path in (runs / name).iterdir()] == ["001"]
    assert metrics(runs / name / "001") == metrics(runs / uninterrupted / "001")
    assert_equal_nested(weights(runs / name / "001"), weights(runs / uninterrupted / "001"))


@slow
def test_run_of_one_process_resumes_in_two(results_folder: Path) -> None:
    one, other = (
        metrics(results_folder / "runs/gpt/001"),
        metrics(results_folder / "runs/started-by-one/001"),
    )
    assert one.keys() == other.keys()
    assert all(other[key] == pytest.approx(one[key], rel=1e-5) for key in one)


@slow
@pytest.mark.parametrize("name", ["gpt-fsdp", "gpt-tp", "gpt-mesh"])
def test_run_of_several_processes_resumes_in_one(
    results_folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results_folder)
    alone = ("--trainer.devices", 1, "--trainer.strategy", "auto", "--trainer.max_steps", 10)
    steady = ("--trainer.val_check_interval", 2, "--runs_dir", results_folder / f"longer-{name}")
    (results_folder / f"longer-{name}").mkdir()
    (results_folder / f"longer-{name}" / name).symlink_to(results_folder / "runs" / name)
    run = train.main([str(a) for a in ("fit", "--resume", f"runs/{name}/001", *alone, *steady)])
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 10
    assert {value["step"].item() for value in state["optimizer_states"][0]["state"].values()} == {
        10.0
    }


@slow
@pytest.mark.parametrize("name", ["gpt-folder", "gpt-tp-folder", "gpt-mesh-folder"])
def test_sharded_checkpoint_is_exported_as_safetensors(
    results_folder: Path, tmp_path: Path, name: str
) -> None:
    written = {}
    for run in (name, "gpt"):
        path = results_folder / "runs" / run / "001/checkpoints/best.ckpt"
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
        ("gpt-mesh-folder", [36, 36, 36, 36], 2),  # split in two, each half sharded
    ],
)
def test_every_process_stores_its_shard_of_the_matrices(
    results_folder: Path, name: str, matrices: list[int], embeddings: int
) -> None:
    stored = sharded_checkpoint._index(results_folder / "runs" / name / "001/checkpoints/last.ckpt")
    shards = {
        key: [chunk.sizes[0] for chunk in found.chunks]
        for key, found in stored.state_dict_metadata.items()
        if key.startswith("state_dict.net")
    }
    assert shards["state_dict.net.blocks.0.attention.qkv.weight"] == matrices
    assert len(shards["state_dict.net.token_embedding.weight"]) == embeddings


@slow
def test_sharded_checkpoint_is_exported_as_a_checkpoint_that_generates(
    results_folder: Path, tmp_path: Path
) -> None:
    path = results_folder / "runs/gpt-folder/001/checkpoints/best.ckpt"
    for kind in ("checkpoint", "huggingface"):
        options = ("--checkpoint", path, "--format", kind, "--output", tmp_path / kind)
        export.main([str(option) for option in options])
    one = open_language_model(results_folder / "runs/gpt/001/checkpoints/best.ckpt")
    again = open_language_model(tmp_path / "checkpoint/model.ckpt")
    tokens = torch.arange(16)[None]
    assert torch.allclose(again(tokens)[0], one(tokens)[0], atol=1e-3)
    assert again.generate("def ", 20, seed=1) == one.generate("def ", 20, seed=1)
    assert (tmp_path / "huggingface/model.safetensors").is_file()


@slow
def test_sharded_checkpoint_is_validated_by_its_strategy(results_folder: Path) -> None:
    (run,) = (results_folder / "runs/validate-folder").iterdir()
    found = json.loads((run / "results.json").read_text())["metrics"]
    expected = json.loads((results_folder / "runs/gpt/001/results.json").read_text())["metrics"]
    assert found["val/loss"] == pytest.approx(expected["val/loss"], rel=1e-5)


@slow
def test_init_from_a_sharded_checkpoint_in_one_process(
    results_folder: Path, run: Callable[..., Path]
) -> None:
    path = results_folder / "runs/gpt-folder/001/checkpoints/best.ckpt"
    no_learning = ("--model.optimizer", "SGD", "--model.optimizer.lr", 0.0, "--model.lr_scheduler")
    new = run("fit", *GPT, *no_learning, "null", "--init_from", path, "--trainer.max_steps", 4)
    expected = weights(results_folder / "runs/gpt-folder/001")
    assert_equal_nested({name: weights(new)[name] for name in expected}, expected)


@slow
def test_sharded_checkpoint_needs_its_strategy(results_folder: Path, refused) -> None:
    path = results_folder / "runs/gpt-folder/001/checkpoints/best.ckpt"
    paragraph = refused("validate", *GPT, "--ckpt_path", path)
    assert "fsdp.yaml" in paragraph
    assert "export.py" in paragraph


@slow
def test_resume_falls_back_from_a_truncated_sharded_checkpoint(
    results_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(results_folder / "runs/gpt-folder/001", tmp_path / "run")
    last = tmp_path / "run/checkpoints/last.ckpt"
    assert checkpoint_of(tmp_path / "run", check_checkpoint) == last
    shard = last / "__1_0.distcp"
    shard.write_bytes(shard.read_bytes()[:-100])
    best = tmp_path / "run/checkpoints/best.ckpt"
    assert checkpoint_of(tmp_path / "run", check_checkpoint) == best
    # Killed between the two steps in which a folder is replaced.
    shutil.rmtree(last)
    best.rename(last.with_name("last.ckpt.old"))
    assert checkpoint_of(tmp_path / "run", check_checkpoint) == last.with_name("last.ckpt.old")


@slow
@pytest.mark.parametrize("name", ["refused-lstm-tp", "refused-heads", "refused-adapted-tp"])
def test_unsupported_tensor_parallelism_is_refused(results_folder: Path, name: str) -> None:
    messages = json.loads((results_folder / "messages-2.json").read_text())
    assert messages.keys() == {"refused-lstm-tp", "refused-heads", "refused-adapted-tp"}
    assert messages[name]["code"] == 2
    assert messages[name]["stderr"].count("train.py: error: ") == 1
    assert ("parts of 3" if "heads" in name else "fsdp.yaml") in messages[name]["stderr"]
    assert not list((results_folder / "runs").glob(f"{name}/*"))


@slow
@pytest.mark.parametrize("number", many_devices.RUNS)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "mesh"])
def test_loss_is_the_mean_over_all_tokens_of_all_processes(
    results_folder: Path, strategy: str, number: int
) -> None:
    one = many_devices.train_padded()
    many = torch.load(results_folder / f"padded-{number}.pt", weights_only=True)[strategy]
    assert max((one[name] - many[name]).abs().max() for name in one) < 1e-5
