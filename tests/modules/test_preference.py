"""PreferenceModel: equation 7 of DPO, a fixed reference, exact resume."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from modules import PreferenceModel
from modules.nets import Bigram
from modules.preference import answer_log_probs, dpo_loss
from preprocessing.special_tokens import IGNORE_INDEX
from tests.support import ROOT
from tests.support.resume import Crash, assert_same_run, crash_after

SMALL = (
    *("fit", "--config", ROOT / "configs/instruct/dpo.yaml"),
    *("--config", ROOT / "configs/size/gpt-nano.yaml", "--data.bpe_vocab_size", 270),
    *("--data.context", 128, "--trainer.max_epochs", 2, "--trainer.callbacks", "[]"),
)


def test_loss_is_equation_7() -> None:
    policy, reference, beta = [-3.0, -5.0], [-4.0, -4.5], 0.1  # log-probabilities
    margin = beta * (policy[0] - reference[0]) - beta * (policy[1] - reference[1])
    expected = -math.log(1 / (1 + math.exp(-margin)))
    assert float(dpo_loss(torch.tensor([margin]))) == pytest.approx(expected, rel=1e-6)
    smoothed = 0.8 * expected - 0.2 * math.log(1 / (1 + math.exp(margin)))
    assert float(dpo_loss(torch.tensor([margin]), 0.2)) == pytest.approx(smoothed, rel=1e-6)


def test_log_probability_of_an_answer_is_the_sum_over_its_tokens() -> None:
    logits = torch.randn(2, 5, 7)
    targets = torch.tensor([[IGNORE_INDEX, 3, 1, IGNORE_INDEX, IGNORE_INDEX], [2, 0, 6, 5, 4]])
    log_probs = logits.log_softmax(dim=-1)
    first = log_probs[0, 1, 3] + log_probs[0, 2, 1]
    second = log_probs[1, range(5), targets[1]].sum()
    torch.testing.assert_close(answer_log_probs(logits, targets), torch.stack([first, second]))


def test_margin_compares_policy_and_reference() -> None:
    task = PreferenceModel(Bigram(7), beta=0.5)
    torch.nn.init.normal_(next(task.net.parameters()))
    inputs = {"input_ids": torch.randint(7, (3, 2, 4)), "index": torch.tensor([2, 0, 1])}
    batch = (inputs, torch.randint(7, (3, 2, 4)))
    log_probs = task.log_probs(batch).detach()
    task.reference["train"] = torch.randn(3, 2)
    chosen, rejected = (log_probs - task.reference["train"][inputs["index"]]).T
    torch.testing.assert_close(task._margins(batch, "train").detach(), 0.5 * (chosen - rejected))


@pytest.mark.slow
def test_preferences_are_learned_from_a_loss_of_ln_2(run: Callable, small_texts: Path) -> None:
    folder = run(*SMALL, "--data.data_dir", small_texts, "--model.optimizer.lr", 0.003)
    content = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert content["reference_log_probs"]["train"].shape == (48, 2)
    assert content["reference_log_probs"]["train"].max() < -1
    text = (folder / "metrics.csv").read_text()
    assert "val/reward_accuracy" in text
    task = PreferenceModel.load_from_checkpoint(folder / "checkpoints/last.ckpt", weights_only=True)
    assert task.beta == 0.1
    assert isinstance(task.chat([{"role": "user", "content": "a"}], max_new_tokens=3), str)


@pytest.mark.slow
def test_run_resumes_bit_exactly_mid_epoch(run: Callable, small_texts: Path) -> None:
    arguments = (
        *(*SMALL, "--data.data_dir", small_texts, "--trainer.log_every_n_steps", 1),
        *("--checkpoint.every_n_steps", 2, "--test_after_fit", "false"),
    )
    uninterrupted = run(*arguments, "--experiment", "uninterrupted")
    with pytest.raises(Crash):
        run(*arguments, "--experiment", "stopped", *crash_after(3))
    resumed = run(*arguments, "--experiment", "stopped", "--resume", "auto")
    assert_same_run(uninterrupted, resumed)


def test_wrong_arguments_are_refused() -> None:
    for arguments in ({"beta": 0.0}, {"label_smoothing": 0.5}):
        with pytest.raises(Exception, match=f"model.{next(iter(arguments))} must be"):
            PreferenceModel(Bigram(7), **arguments)
