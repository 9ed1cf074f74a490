"""Checkpoints of adapters: without the base, which they name; rebuilt, resumed and refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from callbacks import BackboneFinetuning
from engine.checkpoint.reading import load_task, read_checkpoint
from engine.errors import UserError
from modules import Classifier
from modules.adapters import IA3, DoRA, HeadOnly, LoRA
from modules.nets import MLP, BertClassifier
from modules.nets.huggingface.bert import save_bert
from tests.support import ROOT, TINY
from tests.support.resume import Crash, assert_same_run, crash_after

Run = Callable[..., Path]
NET = ("--config", TINY, "--model.net", "modules.nets.MLP", "--model.net.hidden_sizes", "[12, 8]")
SMALL = ("--data.batch_size", 64, "--trainer.limit_train_batches", 6, "--model.net.dropout", 0.1)
LORA = ("--config", ROOT / "configs/adapter/lora.yaml", "--model.adapter.rank", 2)
IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a short run of an MLP."""
    folder = tmp_path_factory.mktemp("base")
    quiet = ("--trainer.enable_progress_bar", "false", "--test_after_fit", "false")
    train.main([str(a) for a in ("fit", *NET, *SMALL, *quiet, "--runs_dir", folder)])
    return next(folder.glob("*/*/checkpoints/last.ckpt"))


@pytest.fixture
def adapted(run: Run, base: Path) -> Path:
    """The run folder of an adapter of that base."""
    return run("fit", *NET, *SMALL, *LORA, "--init_from", base)


def logits(checkpoint: Path) -> torch.Tensor:
    return load_task(checkpoint, Classifier, "a test")(IMAGES)


def test_checkpoint_holds_the_adapter_and_names_its_base(adapted: Path, base: Path) -> None:
    saved = read_checkpoint(adapted / "checkpoints/best.ckpt")
    assert sorted(saved["state_dict"]) == [
        *(f"net.layers.{n}.lora_{m}.default.weight" for n in (1, 4) for m in "AB"),
        *("net.layers.7.bias", "net.layers.7.weight"),
    ]
    assert saved["base"]["checkpoint"] == str(base)
    assert len(saved["base"]["sha256"]) == 64
    task = load_task(adapted / "checkpoints/best.ckpt", Classifier, "a test")
    weights = task.state_dict()
    for name, weight in read_checkpoint(base)["state_dict"].items():
        if not name.startswith("net.layers.7"):
            adapted_name = name.replace(".weight", ".base_layer.weight")
            adapted_name = adapted_name.replace(".bias", ".base_layer.bias")
            assert torch.equal(weights[adapted_name], weight)
    for name, weight in saved["state_dict"].items():
        assert torch.equal(weights[name], weight)
    assert saved["state_dict"]["net.layers.1.lora_B.default.weight"].abs().max() > 0


def test_checkpoint_is_evaluated_by_train_py(run: Run, adapted: Path) -> None:
    tested = run("test", "--ckpt_path", adapted / "checkpoints/best.ckpt")
    found, expected = ((f / "results.json").read_text() for f in (tested, adapted))
    assert found.split('"test/loss": ')[1][:8] == expected.split('"test/loss": ')[1][:8]


@pytest.mark.parametrize("method", ["LoRA", "DoRA", "IA3", "HeadOnly"])
def test_resume_of_an_adapter_is_bit_exact(run: Run, base: Path, method: str) -> None:
    arguments = (
        *("fit", *NET, *SMALL, "--init_from", base, "--model.adapter", method),
        *("--trainer.max_epochs", 2, "--checkpoint.every_n_steps", 4, "--test_after_fit", "false"),
        *("--trainer.log_every_n_steps", 1),
    )
    uninterrupted = run(*arguments, "--experiment", "uninterrupted")
    with pytest.raises(Crash):
        run(*arguments, "--experiment", "stopped", *crash_after(10))
    resumed = run(*arguments, "--experiment", "stopped", "--resume", "auto")
    assert_same_run(uninterrupted, resumed)
    saved = read_checkpoint(resumed / "checkpoints/last.ckpt")
    assert saved["base"]["checkpoint"] == str(base)
    assert "net.layers.1.weight" not in saved["state_dict"]


def test_resume_under_weight_averaging_is_bit_exact(run: Run, base: Path) -> None:
    arguments = (
        *("fit", *NET, *SMALL, *LORA, "--init_from", base, "--test_after_fit", "false"),
        *("--config", ROOT / "configs/trainer/ema.yaml", "--checkpoint.every_n_steps", 4),
    )
    uninterrupted = run(*arguments, "--experiment", "uninterrupted")
    with pytest.raises(Crash):
        run(*arguments, "--experiment", "stopped", *crash_after(5))
    resumed = run(*arguments, "--experiment", "stopped", "--resume", "auto")
    assert_same_run(uninterrupted, resumed)
    saved = read_checkpoint(resumed / "checkpoints/last.ckpt")
    assert len(saved["state_dict"]) == 6


def test_missing_or_changed_base_is_refused(
    run: Run, refused: Callable[..., str], base: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "base.ckpt"
    copy.write_bytes(base.read_bytes())
    folder = run("fit", *NET, *SMALL, *LORA, "--init_from", copy)
    path = folder / "checkpoints/best.ckpt"
    content = torch.load(copy, weights_only=True)
    content["state_dict"]["net.layers.1.weight"][0, 0] += 1e-3
    torch.save(content, copy)
    message = refused("test", "--ckpt_path", path)
    assert f"trained on other weights than {copy} holds now: expected SHA-256" in message
    with pytest.raises(UserError, match="trained on other weights"):
        logits(path)
    del content["state_dict"]["net.layers.1.weight"]
    torch.save(content, copy)
    assert "it has no net.layers.1.weight" in refused("test", "--ckpt_path", path)
    copy.unlink()
    assert f"there is no checkpoint at {copy}" in refused("test", "--ckpt_path", path)


def test_adapter_continues_from_the_checkpoint_of_an_adapter(
    run: Run, refused: Callable[..., str], adapted: Path, base: Path
) -> None:
    path = adapted / "checkpoints/last.ckpt"
    still = ("--model.optimizer", "SGD", "--model.optimizer.lr", 0.0)
    again = run("fit", *NET, *SMALL, *LORA, *still, "--init_from", path, "--experiment", "again")
    saved, before = read_checkpoint(again / "checkpoints/last.ckpt"), read_checkpoint(path)
    assert saved["base"] == before["base"]
    assert all(torch.equal(saved["state_dict"][n], w) for n, w in before["state_dict"].items())
    message = refused("fit", *NET, *SMALL, *LORA[:-1], 3, "--init_from", path)
    assert "holds an adapter that this task does not have" in message
    assert "--merge" in refused("fit", *NET, *SMALL, "--init_from", path)


def test_checkpoint_without_a_known_base_is_complete(tmp_path: Path) -> None:
    import lightning as L

    task = Classifier(MLP(image_size=8, hidden_sizes=[6]), adapter=LoRA(rank=2))
    with pytest.warns(UserWarning, match="checkpoints hold the whole network"):
        task.on_fit_start()
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    assert torch.equal(logits(tmp_path / "task.ckpt"), task.eval()(IMAGES))


def test_base_may_be_the_folder_of_pretrained_weights(tmp_path: Path) -> None:
    import lightning as L

    sizes: dict[str, Any] = {"context": 8, "num_layers": 1, "num_heads": 2, "dim": 8}
    save_bert(BertClassifier(3, 20, **sizes), tmp_path / "bert", ["a", "b", "c"])
    net = BertClassifier(2, 20, **sizes, pretrained="bert", data_dir=tmp_path)
    task = Classifier(net, num_classes=2, adapter=DoRA(rank=2))
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    assert read_checkpoint(tmp_path / "task.ckpt")["base"]["pretrained"] == "bert"
    again = load_task(tmp_path / "task.ckpt", Classifier, "a test")
    inputs = {"input_ids": torch.arange(6)[None]}
    assert torch.equal(again(inputs), task.eval()(inputs))
    save_bert(BertClassifier(3, 20, **sizes), tmp_path / "bert", ["a", "b", "c"])
    with pytest.raises(UserError, match="trained on other weights than bert holds now"):
        load_task(tmp_path / "task.ckpt", Classifier, "a test")


def test_adapters_are_chosen_at_inference(run: Run, base: Path, adapted: Path) -> None:
    ia3 = ("--model.adapter", "IA3", "--experiment", "ia3", "--model.optimizer.lr", 0.1)
    other = run("fit", *NET, *SMALL, "--model.optimizer", "SGD", *ia3, "--init_from", base)
    paths = {"lora": adapted / "checkpoints/best.ckpt", "ia3": other / "checkpoints/best.ckpt"}
    expected = {name: logits(path) for name, path in paths.items()}
    assert not torch.allclose(expected["lora"], expected["ia3"])
    for start in (base, paths["lora"]):
        task = load_task(start, Classifier, "a test")
        for name, path in paths.items():
            task.load_adapter(name, path)
        for name in ("ia3", "lora", "ia3"):
            task.use_adapter(name)
            assert torch.equal(task(IMAGES), expected[name])
    task.use_adapter(None)
    assert {*task.state_dict()} == {*load_task(base, Classifier, "a test").state_dict()}
    with pytest.raises(UserError, match="no adapter 'x'; loaded with load_adapter: lora, ia3"):
        task.use_adapter("x")
    with pytest.raises(UserError, match="does not hold an adapter"):
        task.load_adapter("base", base)
    task.net.layers[1].weight.data += 1
    with pytest.raises(UserError, match="an adapter of other weights"):
        task.load_adapter("lora", paths["lora"])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--model.adapter.rank", 0), "LoRA: rank must be at least 1, got 0"),
        (
            ("--model.adapter.target_modules", "[query, value]"),
            "matches no layer of MLP; its linear layers are layers.1, layers.4",
        ),
        (("--model.adapter", "LoRa"), "Did you mean 'LoRA'?"),
    ],
)
def test_invalid_adapters_are_refused(refused: Callable, flags: tuple, expected: str) -> None:
    assert expected in refused("fit", *NET, *SMALL, *LORA, *flags)


def test_backbone_that_an_adapter_freezes_is_not_unfrozen() -> None:
    net = BertClassifier(2, 20, context=8, num_layers=1, num_heads=2, dim=8)
    task = Classifier(net, num_classes=2, adapter=LoRA(rank=2))
    trainer: Any = None
    with pytest.raises(UserError, match="trains the weights that an adapter freezes"):
        BackboneFinetuning().setup(trainer, task, "fit")


@pytest.mark.parametrize("adapter", [LoRA(rank=3), IA3(), HeadOnly()], ids=str)
def test_adapter_is_a_plain_hyperparameter(adapter: Any) -> None:
    task = Classifier(MLP(image_size=8, hidden_sizes=[6]), adapter=adapter)
    description = task.hparams["adapter"]
    assert description["class_path"].endswith(f".{type(adapter).__name__}")
    assert description["init_args"] == vars(adapter)
