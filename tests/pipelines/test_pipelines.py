"""The stages from data to a served model, and the gate that refuses a worse model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.support import ROOT, TINY

pytest.importorskip("mlflow")

from integrations.mlflow_registry import main as register
from pipelines import compare, data, deploy, train
from pipelines.compare import difference, gate


def logits(correct: list[bool]) -> torch.Tensor:
    """Logits of two classes for labels of 0."""
    return torch.tensor([[1.0, 0.0] if one else [0.0, 1.0] for one in correct])


def compared(ours: list[bool], theirs: list[bool]) -> dict[str, Any]:
    labels = torch.zeros(len(ours), dtype=torch.int64)
    found = difference(logits(ours), logits(theirs), labels)
    return {"champion": "1", "rows": len(ours)} | found


def test_gate_refuses_only_significantly_worse_models() -> None:
    right, wrong = [True], [False]
    worse = compared(right * 80 + wrong * 20, right * 100)
    assert worse["difference"] == pytest.approx(-0.2)
    assert worse["p_value"] == pytest.approx(2 * 0.5**20)
    assert -0.3 < worse["interval"][0] < -0.2 < worse["interval"][1] < -0.1
    assert not gate(worse, 0.05)[0]
    assert gate(compared(right * 100, right * 80 + wrong * 20), 0.05)[0]
    accepted, text = gate(compared(right * 98 + wrong * 2, right * 100), 0.05)  # p = 0.5
    assert accepted
    assert "difference -0.0200" in text
    assert gate({"champion": None, "accuracy": 0.1}, 0.05)[0]


def test_dvc_declares_commands_of_this_project() -> None:
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    assert [*declared["stages"]] == [
        *("data", "validate", "train", "evaluate", "compare", "gate", "register", "deploy"),
        "smoke_test",
    ]
    produced: set[str] = set()
    for stage in declared["stages"].values():
        module = stage["cmd"].split()[2].replace(".", "/")
        assert (ROOT / f"{module}.py").is_file()
        for dependency in stage["deps"]:
            if dependency.startswith("${out}"):
                assert any(dependency.startswith(one) for one in produced), dependency
            elif not dependency.startswith("$"):
                assert (ROOT / dependency).exists(), dependency
        outs = [*stage.get("outs", []), *stage.get("metrics", [])]
        produced |= {one if isinstance(one, str) else next(iter(one)) for one in outs}


@pytest.mark.slow
def test_stages_from_data_to_a_served_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # MLflow keeps the database of a relative address open, which other tests have in other folders.
    runs_dir = tmp_path / "runs"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{runs_dir}/mlflow.db")
    config = ("--config", str(TINY))
    data.main([*config, "--output", "out/data.json"])
    first = Path("out/data.json").read_bytes()
    data.main([*config, "--output", "out/data.json"])
    assert Path("out/data.json").read_bytes() == first

    mlflow = ("--config", str(ROOT / "configs/logger/mlflow.yaml"))
    fit = ["--experiment", "p", "--trainer.max_epochs", "4", "--runs_dir", str(runs_dir)]
    train.main([*config, *mlflow, *fit, "--output", "out/model"])
    checkpoint = Path("out/model/checkpoints/best.ckpt")
    weights = checkpoint.read_bytes()
    train.main([*config, *mlflow, *fit, "--output", "out/model"])
    assert checkpoint.read_bytes() == weights  # of a second run

    name = ("--name", "digits")
    given = ("--checkpoint", str(checkpoint))
    compare.main([*given, *config, *name, "--output", "out/comparison.json"])
    compare.main(["--gate", "out/comparison.json", "--output", "out/gate.json"])
    assert "there is no champion yet" in capsys.readouterr().out
    version = ("--output", "out/version.json")
    assert register([*given, *name, "--alias", "challenger", *version]) == "1"
    deploy.main([*name, "--version", "out/version.json", "--output", "out/deployed.json"])
    deploy.main(["--smoke_test", *name, *config, "--output", "out/smoke.json"])
    assert "Downloading" not in capsys.readouterr().err
    assert json.loads(Path("out/smoke.json").read_text())["equal"]

    # A model that learned nothing is compared on the same rows, and refused.
    worse = ["--experiment", "q", "--trainer.max_epochs", "1", "--model.optimizer", "AdamW"]
    worse += ["--model.optimizer.lr", "0.0"]
    train.main([*config, *worse, "--output", "out/worse"])
    given = ("--checkpoint", "out/worse/checkpoints/best.ckpt")
    compare.main([*given, *config, *name, "--output", "out/comparison.json"])
    with pytest.raises(SystemExit) as exit:
        compare.main(["--gate", "out/comparison.json", "--output", "out/gate2.json"])
    assert exit.value.code == 1
    assert "refused: accuracy 0." in capsys.readouterr().out
    assert not Path("out/gate2.json").exists()
