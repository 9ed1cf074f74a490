"""The command line as settings: config files, flags, what each sets and what a run is."""

from pathlib import Path

import pytest

from cli.arguments import Arguments, settings_of
from cli.diagnosis import Schema, explain
from cli.expectations import reason_not_judged
from cli.help import help_text
from engine.errors import UserError
from tests.support import ROOT, TINY

CONFIGS = ROOT / "configs"
MLP, CNN = CONFIGS / "digits/mlp.yaml", CONFIGS / "digits/cnn.yaml"
SGD = "model: {init_args: {optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.2}}}}"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def parse(*words: object) -> Arguments:
    return Arguments([str(word) for word in words])


def test_settings_have_plain_keys_and_sources() -> None:
    arguments = parse("fit", "--config", TINY, "--model.net.init_args.padding=1", "--data.seed", 3)
    found = {s.key: (s.value, s.source) for s in arguments.settings}
    assert found["model"] == ("modules.Classifier", str(TINY))
    assert found["model.net.channels"] == ([4], str(TINY))
    assert found["model.net.padding"] == (1, "--model.net.init_args.padding")
    assert found["data.seed"] == (3, "--data.seed")


def test_another_class_discards_earlier_arguments() -> None:
    arguments = parse("fit", "--config", TINY, "--model.net", "MLP")
    assert arguments.chosen_class("model.net") == "modules.nets.MLP"
    assert arguments.explicit("model.net.channels") is None
    assert arguments.explicit("trainer.max_epochs") is not None


@pytest.mark.parametrize("choice", [("--model.optimizer", "SGD"), ("--config", SGD)])
def test_flag_of_an_optimizer_chosen_later_is_kept(tmp_path: Path, choice: tuple) -> None:
    if choice[0] == "--config":
        choice = ("--config", write(tmp_path / "sgd.yaml", SGD))
    words = parse("fit", "--config", MLP, "--model.optimizer.weight_decay", 0.5, *choice).to_words()
    assert words[-2:] == ["--model.optimizer.weight_decay", "0.5"]
    given = parse("fit", "--model.optimizer.lr", 1, "--model.optimizer", "SGD")
    assert given.explicit("model.optimizer.lr").value == 1


def test_later_config_overrides_a_flag_that_it_sets_too(tmp_path: Path) -> None:
    overlay = write(tmp_path / "sgd.yaml", SGD)
    arguments = parse("fit", "--config", MLP, "--model.optimizer.lr", 1, "--config", overlay)
    assert arguments.explicit("model.optimizer.lr").value == 0.2


def test_bare_names_are_ours_or_torchs() -> None:
    words = parse("fit", "--model", "Classifier", "--model.optimizer=SGD", "--data", "Digits")
    assert words.to_words() == [
        *("fit", "--model", "modules.Classifier", "--model.optimizer", "torch.optim.SGD"),
        *("--data", "datamodules.Digits"),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fit", "configs/x.yaml"), "write --config configs/x.yaml"),
        (("fit", "x"), "unexpected argument 'x': flags are written as --key VALUE"),
        (("fit", "--data"), "--data needs a value"),
        (("fit", "--data", "--model"), "--data needs a value"),
        ((), "unknown subcommand ''; choose from fit, validate, test, predict"),
    ],
)
def test_malformed_command_line_says_what_to_write(words: tuple, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse(*words)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "trainer:\n  max_epochs: 1\n  max_epochs: 2\n",
            "'trainer.max_epochs' is set twice, in lines 2",
        ),
        ("a:\n  - {b: 1,\n     b: 2}\n", "'a.b' is set twice, in lines 2 and 3"),
        ("just text", "is not a config: expected keys with values"),
        ("*bold*", "is not valid YAML"),
        ("a: [1", "is not valid YAML"),
    ],
)
def test_config_errors_name_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "mine.yaml", text)
    with pytest.raises(UserError) as error:
        parse("fit", "--config", path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_home_is_expanded_in_flags_and_files(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "mine.yaml", "data: {init_args: {data_dir: ~/sets, files: [~/a.txt, 'x~/']}}")
    arguments = parse("fit", "--config", "~/mine.yaml", "--runs_dir=~/runs", "--init_from", "~/a")
    values = {s.key: s.value for s in arguments.settings}
    assert values == {
        "data.data_dir": f"{tmp_path}/sets",
        "data.files": [f"{tmp_path}/a.txt", "x~/"],
        "runs_dir": f"{tmp_path}/runs",
        "init_from": f"{tmp_path}/a",
    }


def test_run_of_two_experiments_is_named_after_both() -> None:
    overlay = CONFIGS / "trainer/bf16.yaml"
    both = parse("fit", "--config", MLP, "--config", overlay, "--config", CNN)
    assert both.experiment_folder("runs", None) == Path("runs/digits-mlp+digits-cnn")
    assert (
        parse("fit", "-c", overlay, "-c", MLP).experiment_folder("runs", None).name == "digits-mlp"
    )


def test_run_without_config_is_named_after_task_and_data() -> None:
    arguments = parse("fit", "--model", "my_task.AutoEncoder", "--data", "my_data.Noise")
    assert arguments.experiment_folder("runs", None) == Path("runs/AutoEncoder-Noise")


def test_evaluation_is_written_beside_the_run_it_evaluates(tmp_path: Path) -> None:
    config = write(tmp_path / "there/digits-mlp/001/config.yaml", MLP.read_text())
    checkpoint = tmp_path / "there/digits-mlp/001/checkpoints/best.ckpt"
    for arguments in (
        parse("test", "--config", config, "--ckpt_path", checkpoint),
        parse("test", "--ckpt_path", checkpoint),
    ):
        assert [item.value for item in arguments.configs] == [str(config)]
        assert arguments.experiment_folder("runs", None) == tmp_path / "there/digits-mlp"
    named = parse("test", "--ckpt_path", checkpoint, "--experiment", "x", "--runs_dir", "runs")
    assert named.experiment_folder("runs", "x") == Path("runs/x")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--trainer.accelerator", "cpu", "--runs_dir", "x", "--seed_everything", 3), None),
        (
            ("--config", CONFIGS / "logger/wandb.yaml", "--config", CONFIGS / "trainer/ddp.yaml"),
            None,
        ),
        (("--trainer.callbacks", "null"), None),
        (("--trainer.callbacks+", "callbacks.Speed"), None),
        (
            ("--trainer.callbacks+", "callbacks.EMAWeightAveraging"),
            "trainer.callbacks differs from ",
        ),
        (("--trainer.max_epochs", 1), "trainer.max_epochs differs from "),
        (("--data", "FashionMNIST", "--data.batch_size", 3), "data, data.batch_size differ from "),
        (
            ("--config", CONFIGS / "optimizer/sgd.yaml"),
            "model.optimizer, model.optimizer.lr differ",
        ),
        (("--trainer.max_epochs", 1, "--expect", '{"val/loss": "< 3"}'), None),
    ],
)
def test_only_the_run_that_the_config_describes_is_judged(words: tuple, reason: str | None) -> None:
    found = reason_not_judged(parse("fit", "--config", MLP, *words))
    assert (found is None) if reason is None else (found or "").startswith(reason)


def test_callback_given_by_its_bare_name_is_a_change() -> None:
    reason = reason_not_judged(parse("fit", "--config", MLP, "--trainer.callbacks+=EarlyStopping"))
    assert reason == f"trainer.callbacks differs from {MLP}"


def test_checkpoint_of_a_changed_run_is_not_judged(tmp_path: Path) -> None:
    write(tmp_path / "a/001/config.yaml", "expect: {}")
    words = ("test", "--config", MLP, "--ckpt_path", tmp_path / "a/001/checkpoints/best.ckpt")
    assert "is not from the run" in (reason_not_judged(parse(*words)) or "")
    write(tmp_path / "a/001/config.yaml", "expect: {test/accuracy: '>= 0.9'}")
    assert reason_not_judged(parse(*words)) is None


def test_keys_of_a_dict_are_not_diagnosed_as_arguments() -> None:
    schema = Schema({"expect": dict[str, str], "trials": int})
    settings = settings_of({"expect": {"test/accuracy": ">= 0.9"}, "trials": "many"})
    message = explain(ValueError("parser"), settings, schema)
    assert message == "trials: expected int, not 'many'."
    assert explain(ValueError("parser"), settings[:1], schema) == "parser"


def test_help_fits_two_screens_and_lists_our_classes() -> None:
    text = help_text(["fit", "--help"]) or ""
    assert text.count("\n") < 90
    assert max(map(len, text.splitlines())) <= 100
    for name in ("--test_after_fit", "ImageFolder", "Classifier", "early_stopping", "--data CLASS"):
        assert name in text
    assert "datamodules.ImageFolder " in (help_text(["fit", "--data.help"]) or "")
    assert help_text(["fit", "--config", "x", "--trainer.max_epochs", "3"]) is None


def test_help_lists_data_modules_and_augmentations_apart() -> None:
    data, augmentation = (
        help_text(["fit", f"--{key}.help"]) or "" for key in ("data", "data.augmentation")
    )
    assert "datamodules.PackedIMDB " in data  # its base class is two modules away
    assert "PerImage" not in data
    assert "datamodules.PerImageElastic " in augmentation
    assert "ImageFolder" not in augmentation


def test_help_of_a_class_lists_arguments_of_its_bases() -> None:
    text = help_text(["fit", "--data.help", "ImageFolder"]) or ""
    assert text.count("\n") < 80
    for part in ("--data.folder", "required", "--data.batch_size", "(int; default: 32)"):
        assert part in text
    assert "--trainer.max_epochs" in (help_text(["fit", "--trainer.help"]) or "")
