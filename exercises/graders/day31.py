"""Grader of day 31."""

import json

import numpy as np
import torch

from exercises import expect
from exercises.grading import Task


def _file(pad=0):
    tensors = {
        "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "ids": np.array([5, -7, 2**40], dtype=np.int64),
        "half": np.array([[0.5], [1.5]], dtype=np.float16),
        "scalar": np.array(2.5, dtype=np.float32),
    }
    types, header, body = (
        {"float32": "F32", "int64": "I64", "float16": "F16"},
        {"__metadata__": {"format": "pt"}},
        b"",
    )
    for name, array in tensors.items():
        content = array.tobytes()
        header[name] = {
            "dtype": types[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [len(body), len(body) + len(content)],
        }
        body += content
    text = json.dumps(header).encode() + b" " * pad
    return tensors, len(text).to_bytes(8, "little") + text + body


def tensors_of_a_file(read_safetensors):
    tensors, data = _file()
    try:
        found = read_safetensors(data)
    except KeyError as error:
        raise expect.Wrong(f"KeyError: {error}.", "__metadata__ is not a tensor.") from error
    expect.equal(
        sorted(found),
        sorted(tensors),
        {"__metadata__ is not a tensor.": sorted([*tensors, "__metadata__"])},
        "the list of names",
    )
    for name, right in tensors.items():
        shifted = np.frombuffer(
            data[8:],
            right.dtype,
            right.size,
            offset=json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])[name][
                "data_offsets"
            ][0],
        ).reshape(right.shape)
        mistakes = {"offsets count from the end of the header.": shifted}
        expect.close(np.asarray(found[name]), right, mistakes, name, rtol=0, atol=0)
        expect.true(
            found[name].dtype == right.dtype,
            f"{name} has dtype {found[name].dtype}, expected {right.dtype}.",
        )


def damaged_files(read_safetensors):
    _, data = _file(3)
    expect.raises(ValueError, lambda: read_safetensors(data[:-2]), "if the last tensor is cut off")
    expect.raises(ValueError, lambda: read_safetensors(data[:20]), "if the header is cut off")


def renamed_weights(rename_weights):
    weights = {
        name: torch.tensor(float(i))
        for i, name in enumerate(("encoder.layer.0.attn.q", "encoder.layer.1.attn.q", "pooler.w"))
    }
    found = rename_weights(
        weights,
        [("encoder.layer.", "blocks."), ("attn.q", "attention.query"), ("blocks.0", "first")],
    )
    right = ["blocks.1.attention.query", "first.attention.query", "pooler.w"]
    mistakes = {
        "all rules apply to a name, one after the other.": [
            "blocks.0.attn.q",
            "blocks.1.attn.q",
            "pooler.w",
        ],
        "a rule applies to the result of the rules before it.": [
            "blocks.0.attention.query",
            "blocks.1.attention.query",
            "pooler.w",
        ],
        "names without a match stay.": right[:2],
    }
    expect.equal(sorted(found), right, mistakes, "the list of names")
    expect.equal(
        float(found["first.attention.query"]), 0.0, name="the weight of first.attention.query"
    )


def colliding_names(rename_weights):
    weights = {"a.w": torch.zeros(1), "b.w": torch.ones(1)}
    expect.raises(
        ValueError,
        lambda: rename_weights(weights, [("a.", ""), ("b.", "")]),
        "if two weights would be named w: one would be lost",
    )


def positions_of_padded_rows(position_ids):
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]])
    right = torch.tensor([[0, 0, 0, 1, 2], [0, 1, 2, 3, 4], [0, 0, 0, 0, 0]])
    mistakes = {
        "count words only: padding on the left shifts positions.": torch.arange(5).expand(3, 5),
        "the first word has position 0.": mask.cumsum(1),
        "positions of padding must not be negative.": mask.cumsum(1) - 1,
    }
    expect.close(position_ids(mask), right, mistakes)


def sentence_vectors(mean_pooling):
    hidden, mask = expect.randn(3, 4, 5), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    means = torch.stack([hidden[0].mean(0), hidden[1, :2].mean(0), hidden[2, 0]])
    right = means / means.norm(dim=1, keepdim=True)
    every = hidden.mean(1)
    mistakes = {
        "padding must not count.": every / every.norm(dim=1, keepdim=True),
        "scale to length 1.": means,
        "each sentence has its own length.": means / means.norm(),
        "this is the first token, [CLS].": hidden[:, 0] / hidden[:, 0].norm(dim=1, keepdim=True),
    }
    expect.close(mean_pooling(hidden, mask), right, mistakes)


TASKS = [
    Task("read_safetensors", [tensors_of_a_file, damaged_files]),
    Task("rename_weights", [renamed_weights, colliding_names]),
    Task("position_ids", [positions_of_padded_rows]),
    Task("mean_pooling", [sentence_vectors]),
]
