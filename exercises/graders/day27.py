"""Grader of day 27."""

import torch
import torch.nn.functional as F
from torch import nn

from exercises import expect
from exercises.grading import Task


def projections(fused_projection):
    x, weight, bias = expect.randn(2, 5, 6), expect.randn(18, 6, seed=1), expect.randn(18, seed=2)
    found = expect.parts(fused_projection(x, weight, bias, 3), 3)
    for index, name in enumerate(("the queries", "the keys", "the values")):
        rows = slice(6 * index, 6 * index + 6)
        y = F.linear(x, weight[rows], bias[rows])
        right = torch.stack([y[..., 2 * h : 2 * h + 2] for h in range(3)], dim=1)
        mixed = (
            F.linear(x, weight, bias).unflatten(-1, (3, 3, 2)).permute(3, 0, 2, 1, 4)
        )  # heads first
        mistakes = {
            "the bias is missing.": torch.stack(
                [(y - bias[rows])[..., 2 * h : 2 * h + 2] for h in range(3)], dim=1
            ),
            "transpose after the reshape: (B, T, H, D/H) to (B, H, T, D/H).": y.reshape(2, 3, 5, 2),
            "first split into q, k, v, then into heads.": mixed[index],
        }
        expect.close(found[index], right, mistakes, name)


class _Block(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)


def _network():
    torch.manual_seed(0)
    net = nn.ModuleDict(
        {"embedding": nn.Embedding(200, 64), "h": nn.ModuleList([_Block() for _ in range(8)])}
    )
    for block in net["h"]:
        nn.init.normal_(block.norm.weight)
    return net


def standard_deviations(initialize):
    net = _network()
    initialize(net, 8, torch.Generator().manual_seed(1))
    scaled = 0.02 / 4
    for name, weight, right in (
        ("embedding.weight", net["embedding"].weight, 0.02),
        ("c_attn.weight", net["h"][0].c_attn.weight, 0.02),
        ("c_proj.weight", net["h"][3].c_proj.weight, scaled),
    ):
        found = weight.std().item()
        hint = ""
        if name == "c_proj.weight" and abs(found - 0.02) < 0.002:
            hint = "divide by √(2 · layers) where a block adds to the residual stream."
        elif name == "c_proj.weight" and abs(found - 0.02 / 8**0.5) < 0.0005:
            hint = "each block adds twice: √(2 · layers)."
        elif abs(found - 0.125) < 0.02 or abs(found - 1) < 0.1 or abs(found - 0.072) < 0.01:
            hint = "this is PyTorch's default."
        expect.true(
            abs(found - right) < 0.08 * right,
            f"the standard deviation of {name} is {found:.4f}, expected {right:.4f}.",
            hint,
        )


def biases_and_norms(initialize):
    net = _network()
    initialize(net, 8, torch.Generator().manual_seed(1))
    block = net["h"][5]
    expect.close(block.c_attn.bias.detach(), torch.zeros(192), name="the bias of c_attn")
    expect.close(block.norm.weight.detach(), torch.ones(64), name="the weight of a norm")
    expect.close(block.norm.bias.detach(), torch.zeros(64), name="the bias of a norm")


class _Sum(nn.Module):
    """Predict the sum of all tokens that are passed, modulo 11."""

    def forward(self, tokens):
        if tokens.shape[1] > 4:
            raise expect.Wrong(
                f"{tokens.shape[1]} tokens were passed, at most 4 expected.",
                "crop to the last `context` tokens.",
            )
        return F.one_hot(tokens.cumsum(1) % 11, 11).float()


def _continued(tokens, new, last=True):
    rows = [list(row) for row in tokens.tolist()]
    for row in rows:
        for _ in range(new):
            row.append(sum(row[-4:] if last else row[:4]) % 11)
    return torch.tensor(rows)


def continuation(generate):
    tokens = torch.tensor([[1, 2], [5, 9]])
    right = _continued(tokens, 6)
    mistakes = {
        "keep the last tokens, not the first.": _continued(tokens, 6, last=False),
        "return prompt and continuation.": right[:, 2:],
    }
    expect.close(generate(_Sum(), tokens, 6, 4), right, mistakes)


def continuation_of_a_long_prompt(generate):
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6, 7]])
    expect.close(
        generate(_Sum(), tokens, 2, 4),
        _continued(tokens, 2),
        {"the cropped prompt must stay in the result.": _continued(tokens, 2)[:, 3:]},
    )


def _weights():
    net = nn.ModuleDict(
        {
            "c_attn": nn.Linear(4, 12),
            "c_proj": nn.Linear(4, 4),
            "wte": nn.Embedding(4, 4),
            "ln": nn.LayerNorm(4),
        }
    )
    weights = {
        name: expect.randn(*p.shape, seed=i, dtype=torch.float32)
        for i, (name, p) in enumerate(net.named_parameters())
    }
    stored = {
        name: value.T if name in ("c_attn.weight", "c_proj.weight") else value
        for name, value in weights.items()
    }
    return net, weights, {**stored, "h.0.attn.bias": torch.ones(4, 4).tril()}


def loaded_weights(load_gpt2):
    net, weights, stored = _weights()
    load_gpt2(net, stored)
    for name, parameter in net.named_parameters():
        mistakes = {
            "c_proj is stored transposed, too: a square matrix hides it.": stored[name],
            "only c_attn, c_proj and c_fc are transposed, not embeddings.": stored[name].T
            if stored[name].ndim == 2
            else stored[name],
        }
        if torch.equal(
            mistakes["c_proj is stored transposed, too: a square matrix hides it."], weights[name]
        ):
            del mistakes["c_proj is stored transposed, too: a square matrix hides it."]
        expect.close(parameter.detach(), weights[name], mistakes, name)


def wrong_weights(load_gpt2):
    net, _, stored = _weights()
    for change, when in (
        ({"ln.weight": None}, "if ln.weight is missing"),
        ({"ln.weight": torch.ones(5)}, "if ln.weight has another shape"),
    ):
        changed = {name: value for name, value in {**stored, **change}.items() if value is not None}
        expect.raises(ValueError, lambda changed=changed: load_gpt2(net, changed), when)
        try:
            load_gpt2(net, changed)
        except ValueError as error:
            expect.true("ln.weight" in str(error), "the message does not name the parameter.")


TASKS = [
    Task("fused_projection", [projections]),
    Task("initialize", [standard_deviations, biases_and_norms]),
    Task("generate", [continuation, continuation_of_a_long_prompt]),
    Task("load_gpt2", [loaded_weights, wrong_weights]),
]
