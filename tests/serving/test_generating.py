"""Continuous batching in a worker: texts come and go, and a text that fails fails alone."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modules import LanguageModel
from modules.nets import PretrainedCausalLM
from serving.worker.generating import Generator, prepare_texts
from serving.worker.requests import Model, Request
from tests.support.huggingface import CONFIGS
from tests.support.served_models import language_model, random_weights

PROMPTS = ["Once upon a time there was", "a film", "good, and", "Once"]
NEW_TOKENS = [6, 12, 3, 9]


def transformers_model() -> LanguageModel:
    """Return the language model with a decoder of transformers in place of GPT."""
    former = language_model()
    sizes = {"vocab_size": former.net.vocab_size, "max_position_embeddings": 64}
    config = CONFIGS["llama"] | sizes | {"model_type": "llama"}
    task = LanguageModel(PretrainedCausalLM(config=config), tokenizer=former.tokenizer.to_str())
    random_weights(task)
    return task


def run(task: LanguageModel, **options: Any) -> tuple[dict[int, dict[str, Any]], list[int]]:
    """Generate texts of requests, each of which arrives a step later than the one before it.

    Returns:
        The last message about each request, and the number of texts of each step.
    """
    messages: dict[int, dict[str, Any]] = {}
    active: list[int] = []
    generator = Generator(slots=3)
    model = Model("writer@1", task, {})
    waiting: Iterator[Request] = iter(
        Request(
            number,
            model,
            "generate",
            {"max_new_tokens": length, "top_k": 1, **options},
            1,
            lambda message: messages.update({message["id"]: message}),
        )
        for number, length in enumerate(NEW_TOKENS)
    )
    while True:
        request = next(waiting, None)
        if request is not None:
            generator.put(prepare_texts(request, [PROMPTS[request.number]]))
        if not len(generator):
            return messages, active
        generator.step(lambda message: active.append(message["generating"]))


@pytest.mark.parametrize("make", [language_model, transformers_model])
def test_texts_that_come_and_go_equal_single_texts(make):
    task = make()
    calls: list[int] = []
    task.net.register_forward_pre_hook(lambda net, args: calls.append(len(args[0])))
    messages, active = run(task)
    assert max(active) == 3  # the fourth waits for a slot
    assert max(calls) == 3  # in one batch
    for number, (prompt, length) in enumerate(zip(PROMPTS, NEW_TOKENS, strict=True)):
        (output,) = messages[number]["results"]
        assert output["text"] == task.generate(prompt, length, top_k=1)
        assert output["tokens"] == length


def test_a_text_that_joins_does_not_wait_for_the_others():
    task = language_model()
    model, pieces = Model("writer@1", task, {}), []

    def request(number: int) -> Request:
        options = {"max_new_tokens": 8, "top_k": 1, "stream": True, "logprobs": 0}
        return Request(number, model, "generate", options, 1, pieces.append)

    generator = Generator(slots=4)
    counted: list[int] = []
    generator.put(prepare_texts(request(0), PROMPTS[:1]))
    for _ in range(3):
        generator.step(lambda message: counted.append(message["generating"]))
    for number in (1, 2):
        generator.put(prepare_texts(request(number), PROMPTS[1:2]))
        before = len(pieces)
        generator.step(lambda message: counted.append(message["generating"]))
        if number == 1:  # the first token of text 1 alone
            assert [piece["id"] for piece in pieces[before:]] == [1]
        else:  # text 2 waits for one step of the others
            assert [piece["id"] for piece in pieces[before:]] == [0, 1]
    assert counted == [1, 1, 1, 1, 2]  # tokens of each step
    while len(generator):
        generator.step(lambda message: None)
    texts = [piece["results"][0]["text"] for piece in pieces if "results" in piece]
    expected = [task.generate(PROMPTS[0], 8, top_k=1)]
    assert sorted(texts) == sorted(expected + [task.generate(PROMPTS[1], 8, top_k=1)] * 2)


class Faulty(nn.Module):
    """A network that fails for texts that begin with a token.

    Args:
        net: The network.
        token: The token.
        fault: `raise`, or `nan` for outputs that are not finite.
    """

    def __init__(self, net: Any, token: int, fault: str) -> None:
        super().__init__()
        self.net, self.token, self.fault = net, token, fault
        self.context, self.vocab_size = net.context, net.vocab_size
        self.init_state = net.init_state
        self.reorder_state, self.join_states = net.reorder_state, net.join_states

    def forward(self, tokens: Tensor, state: Any) -> Any:
        wrong = tokens[:, :1] == self.token if tokens.shape[1] > 1 else torch.zeros(1, 1).bool()
        if wrong.any() and self.fault == "raise":
            raise RuntimeError("this text cannot be processed")
        logits, state = self.net(tokens, state)
        return logits.masked_fill(wrong[..., None], float("nan")), state


@pytest.mark.parametrize(("fault", "error"), [("raise", "internal"), ("nan", "not_finite")])
def test_text_that_fails_does_not_affect_the_others(fault, error):
    task = language_model()
    expected, _ = run(task)
    task.net = Faulty(task.net, task.encode(PROMPTS[1])[0], fault)
    messages, _ = run(task)
    assert messages[1]["error"] == error
    assert {n: messages[n] for n in (0, 2, 3)} == {n: expected[n] for n in (0, 2, 3)}
