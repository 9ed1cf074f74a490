"""Generated texts match their JSON schema or regular expression."""

import json
import re
import sys

import pytest
import torch
from torch import nn

import generate
from datamodules.text.tokenizers import character_tokenizer, train_bpe
from engine.errors import UserError
from modules import LanguageModel
from modules.inference.grammar import json_schema, regex
from modules.nets import GPT

pytest.importorskip("llguidance")

TEXT = 'abc{"name": "Ada", "age": 36, "true": false} 0123456789-:\n'
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(params=["characters", "bpe"], scope="module")
def model(request: pytest.FixtureRequest) -> LanguageModel:
    kind = request.param
    tokenizer = character_tokenizer(TEXT) if kind == "characters" else train_bpe([TEXT], 300)
    net = GPT(tokenizer.get_vocab_size(), context=64, num_layers=1, num_heads=2, dim=16)
    torch.manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.4)
    return LanguageModel(net, tokenizer=tokenizer.to_str())


def test_texts_match_the_regular_expression(model):
    pattern = r"(19|20)[0-9]{2}-[01][0-9]"
    texts = model.generate(["a", "bc", "c{"], 30, grammar=regex(pattern), seed=0)
    assert len({*texts}) > 1
    assert all(re.fullmatch(pattern, text) for text in texts), texts
    assert not any(re.fullmatch(pattern, text) for text in model.generate(["a", "bc"], 30, seed=0))


def test_texts_match_the_json_schema(model):
    for seed in range(3):
        text = model.generate("a", 200, grammar=json_schema(json.dumps(SCHEMA)), seed=seed)
        answer = json.loads(text)
        assert sorted(answer) == ["age", "name"]
        assert 0 <= answer["age"] <= 150
        assert len(answer["name"]) <= 5


def test_end_token_ends_the_text_where_the_grammar_allows_it(model):
    end = model.encode("c")[0]
    model.end_tokens = frozenset({end})
    try:
        texts = [model.generate("a", 40, grammar=regex("[0-9]+"), seed=seed) for seed in range(8)]
    finally:
        model.end_tokens = frozenset()
    assert all(re.fullmatch("[0-9]+", text) for text in texts)
    assert any(len(text) < 20 for text in texts)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: json_schema("{"), "the JSON schema is not JSON"),
        (lambda: json_schema("[1]"), "is not a JSON schema: expected an object"),
        (lambda: json_schema('{"type": "nothing"}'), "the JSON schema is not valid"),
        (lambda: regex("(a"), r"the regular expression '\(a' is not valid"),
    ],
)
def test_invalid_grammar_is_a_user_error(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_schema_that_the_vocabulary_cannot_write_is_a_user_error(model):
    if model.tokenizer.get_vocab_size() >= 256:
        pytest.skip("a byte-level vocabulary can write everything")
    with pytest.raises(UserError, match="its vocabulary lacks the characters"):
        model.generate("a", 5, grammar=regex("é"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json_schema", "no.json"], "cannot read no.json"),
        (["--regex", "(a"], "is not valid"),
        (["--regex", "a", "--beam_size", "2"], "--beam_size cannot be combined"),
        (["--regex", "a", "--draft_checkpoint", "x"], "--draft_checkpoint cannot be combined"),
        (["--beam_size", "0"], "beam_size must be at least 1"),
    ],
)
def test_invalid_options_are_reported_before_the_model_is_loaded(capsys, options, message):
    with pytest.raises(SystemExit) as exit:
        generate.main(["--checkpoint", "none", "--prompt", "a", *options])
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


def test_missing_engine_is_a_user_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UserError, match=r"pip install .stepladder\[structured\]"):
        regex("a")
