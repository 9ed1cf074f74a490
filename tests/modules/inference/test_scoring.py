"""Log-probabilities of options equal those of whole texts."""

from typing import Any

import pytest
import torch

from engine.errors import UserError
from modules.inference.generation import process_prefix
from modules.inference.scoring import score_options
from modules.nets import GPT, PretrainedCausalLM
from tests.support.huggingface import CONFIGS

PROMPTS = [[1, 2, 3], [1, 2, 4, 5], [7]]
OPTIONS = [[3], [4, 5], [6, 7, 8]]


def make_net(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "gpt":
        return GPT(64, context=16, num_layers=2, num_heads=2, dim=16).eval()
    return PretrainedCausalLM(config={"model_type": kind, **CONFIGS[kind]}).eval()


@pytest.mark.parametrize("kind", ["gpt", "llama"])
@pytest.mark.parametrize("shared", [[], [1, 2]])
def test_scores_equal_sums_over_the_tokens_of_whole_texts(kind: str, shared: list[int]) -> None:
    net = make_net(kind)
    scores = score_options(net, PROMPTS, OPTIONS, process_prefix(net, shared))
    for row, prompt in enumerate(PROMPTS):
        for column, option in enumerate(OPTIONS):
            logits = net(torch.tensor([prompt + option]))[0][0].log_softmax(-1)
            expected = sum(
                logits[len(prompt) + n - 1, token].item() for n, token in enumerate(option)
            )
            assert scores[row, column].item() == pytest.approx(expected, abs=1e-5)


def test_empty_options_and_long_prompts_are_refused() -> None:
    net = make_net("gpt")
    with pytest.raises(UserError, match="at least one token"):
        score_options(net, [[1]], [[1], []])
    with pytest.raises(UserError, match="14 tokens and an option of 3 exceed the context of 16"):
        score_options(net, [[1] * 14], [[1, 2, 3]])
