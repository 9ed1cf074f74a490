"""The official client of OpenAI against a real server process."""

import json
import math
from pathlib import Path

import openai
import pytest

from modules import LanguageModel
from tests.support.served_models import open_embedder
from tests.support.server import KEYS, ServerProcess

PROMPT = "Once upon"
MESSAGES = [{"role": "user", "content": "Once upon"}]


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEYS["client"], max_retries=0)


@pytest.fixture(scope="module")
def task(sources: dict[str, Path]) -> LanguageModel:
    return LanguageModel.load_from_checkpoint(sources["writer"], weights_only=True).eval()


def test_completion_is_greedy_at_temperature_0(client: openai.OpenAI, task: LanguageModel) -> None:
    answer = client.completions.create(
        model="writer", prompt=[PROMPT, "a film"], max_tokens=12, temperature=0, logprobs=2
    )
    expected = [task.generate(prompt, 12, top_k=1) for prompt in (PROMPT, "a film")]
    assert [choice.text for choice in answer.choices] == expected
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    assert answer.usage.completion_tokens == 24
    prompts = len(task.encode(PROMPT)) + len(task.encode("a film"))
    assert answer.usage.prompt_tokens == prompts
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == 12
    for value, top in zip(logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
        assert value == pytest.approx(max(top.values()))
        assert math.exp(value) <= 1


def test_chat_completion_streams_the_same_text(client: openai.OpenAI, task: LanguageModel) -> None:
    options = {"model": "writer", "messages": MESSAGES, "max_tokens": 12, "seed": 3}
    answer = client.chat.completions.create(**options, logprobs=True, top_logprobs=1)
    prompt, more = task.chat_prompt(MESSAGES)
    text = answer.choices[0].message.content
    assert text == task.generate(prompt, 12, seed=3, **more)
    assert len(answer.choices[0].logprobs.content) == answer.usage.completion_tokens
    chunks = list(
        client.chat.completions.create(
            **options, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].delta.content for c in chunks[:-1]) == text
    assert chunks[-2].choices[0].finish_reason == answer.choices[0].finish_reason
    assert chunks[-1].usage == answer.usage


def test_stop_ends_the_text(client: openai.OpenAI, task: LanguageModel) -> None:
    whole = task.generate(PROMPT, 20, top_k=1)
    stop = whole[3:5]
    answer = client.completions.create(
        model="writer", prompt=PROMPT, max_tokens=20, temperature=0, stop=["never", stop]
    )
    assert answer.choices[0].text == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


def test_choices_differ_and_are_reproducible(client: openai.OpenAI) -> None:
    options = {"model": "writer", "prompt": PROMPT, "max_tokens": 12, "n": 3, "seed": 1}
    texts = [[c.text for c in client.completions.create(**options).choices] for _ in range(2)]
    assert texts[0] == texts[1]
    assert len({*texts[0]}) > 1


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings(client: openai.OpenAI, sources: dict[str, Path], encoding: str) -> None:
    task = open_embedder(sources["embedder"])
    texts = ["a good film", "bad"]
    answer = client.embeddings.create(model="embedder", input=texts, encoding_format=encoding)
    # The client leaves base64 as it is when it was asked for, and decodes it otherwise.
    if encoding == "base64":
        answer = client.embeddings.create(model="embedder", input=texts)
    for one, vector in zip(answer.data, task.embed(texts).tolist(), strict=True):
        assert list(one.embedding) == pytest.approx(vector, abs=1e-6)
    assert answer.usage.prompt_tokens == 8  # with [CLS] and [SEP]


def test_response_has_the_form_of_a_json_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"good": {"type": "boolean"}},
        "required": ["good"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="writer",
        messages=MESSAGES,
        max_tokens=60,
        seed=0,
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
    )
    assert isinstance(json.loads(answer.choices[0].message.content)["good"], bool)
    assert answer.choices[0].finish_reason == "stop"


def test_models_are_listed(client: openai.OpenAI, sources: dict[str, Path]) -> None:
    assert {model.id for model in client.models.list()} == set(sources)
    assert client.models.retrieve("writer").id == "writer"


def test_errors_have_openais_form(client: openai.OpenAI, server: ServerProcess) -> None:
    with pytest.raises(openai.NotFoundError, match="no model named 'gpt'"):
        client.completions.create(model="gpt", prompt="a")
    with pytest.raises(openai.UnprocessableEntityError, match="the context of the model is 64"):
        client.completions.create(model="writer", prompt="a film " * 90)
    with pytest.raises(openai.UnprocessableEntityError) as error:
        client.completions.create(model="writer", prompt="a", temperature=9)
    assert error.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0).completions.create(
            model="writer", prompt="a"
        )
