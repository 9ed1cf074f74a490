"""Two processes of DeepSpeed, through train.py, are one process; they go on, and are exported."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import export
import train
from tests.support import ROOT, many_devices
from tests.support.many_devices import EXPERIMENTS, GPT
from tests.support.metrics import metrics

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the experiments as one process ran them, and as two did by DeepSpeed."""
    pytest.importorskip("deepspeed")
    folder = tmp_path_factory.mktemp("deepspeed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, arguments in {"gpt": GPT, "accumulated": EXPERIMENTS["accumulated"]}.items():
            train.main(["fit", *map(str, arguments), "--experiment", name])
        many_devices.start(2, folder, str(ROOT / "tests/deepspeed_on_cpu.py"))
    return folder / "runs"


def weights(run: Path, folder: Path) -> dict[str, torch.Tensor]:
    options = {"checkpoint": run / "checkpoints/last.ckpt", "format": "safetensors"}
    options["output"] = folder / run.parent.name
    written = export.main([f"--{name}={value}" for name, value in options.items()])
    return load_file(written / "model.safetensors")


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("name", ["gpt", "accumulated"])
def test_two_processes_are_one(there: Path, tmp_path: Path, name: str, stage: int) -> None:
    one, two = there / name / "001", there / f"{name}-zero{stage}" / "001"
    expected, seen = metrics(one), metrics(two)
    assert expected.keys() == seen.keys()
    assert len(expected) > 10
    for key, value in expected.items():
        assert seen[key] == pytest.approx(value, rel=1e-5), key
    a, b = weights(one, tmp_path), weights(two, tmp_path)
    assert a.keys() == b.keys()
    # Adam divides by the gradient's size: what is about zero moves by its rounding.
    assert max((a[key] - b[key]).abs().max() for key in a) < 1e-4


@pytest.mark.parametrize("stage", [2, 3])
def test_a_run_that_goes_on_is_the_run_that_never_stopped(
    there: Path, tmp_path: Path, stage: int
) -> None:
    whole, again = there / f"gpt-zero{stage}/001", there / f"stopped-zero{stage}/001"
    assert metrics(again) == metrics(whole)
    a, b = weights(whole, tmp_path), weights(again, tmp_path)
    assert all(torch.equal(a[key], b[key]) for key in a)
