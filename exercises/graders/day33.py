"""Grader of day 33."""

import torch
from torch import nn

from exercises import expect
from exercises.grading import Task


def _layer(LoRALinear, **options):
    torch.manual_seed(0)
    base = nn.Linear(6, 5).double()
    return base, LoRALinear(base, **options)


def output_at_the_start(LoRALinear):
    base, layer = _layer(LoRALinear)
    x = expect.randn(2, 3, 6)
    hint = "B must be zero, so that training starts at the pretrained network."
    same = torch.allclose(layer(x), base(x))
    expect.true(same, "at the start the outputs differ from those of the base layer.", hint)
    hint = "if A and B are zero, both gradients are zero forever."
    expect.true(bool((layer.A != 0).any()), "A is zero.", hint)
    shapes = tuple(layer.A.shape), tuple(layer.B.shape)
    expect.equal(shapes, ((4, 6), (5, 4)), name="the shapes of A and B")


def outputs_of_lora(LoRALinear):
    base, layer = _layer(LoRALinear, rank=2, alpha=6.0)
    with torch.no_grad():
        layer.A.copy_(expect.randn(2, 6, seed=1))
        layer.B.copy_(expect.randn(5, 2, seed=2))
    x = expect.randn(4, 6, seed=3)
    update = x @ layer.A.T @ layer.B.T
    mistakes = {
        "scale the update by alpha / rank.": base(x) + update,
        "divide alpha by the rank.": base(x) + 6 * update,
        "add the output of the base layer.": 3 * update,
    }
    expect.close(layer(x), base(x) + 3 * update, mistakes)


def trainable_parameters(LoRALinear):
    _, layer = _layer(LoRALinear)
    layer(expect.randn(3, 6)).sum().backward()
    names = {name for name, p in layer.named_parameters() if p.requires_grad}
    hint = "call requires_grad_(False) on the base layer." if "base.weight" in names else ""
    hint = "A and B must be nn.Parameter." if not {"A", "B"} <= names else hint
    expect.true(names == {"A", "B"}, f"trainable are {sorted(names)}, expected A and B.", hint)
    frozen = {name for name, p in layer.named_parameters() if not p.requires_grad}
    expect.equal(sorted(frozen), ["base.bias", "base.weight"], name="the frozen parameters")


def dropout_of_lora(LoRALinear):
    base, layer = _layer(LoRALinear, dropout=0.5)
    nn.init.ones_(layer.B)
    x = expect.randn(50, 6)
    layer.train()
    differ = not torch.allclose(layer(x), layer(x))
    expect.true(differ, "dropout has no effect in training.", "apply nn.Dropout to the input of A.")
    layer.eval()
    expect.close(
        layer(x), base(x) + 2 * (x @ layer.A.T @ layer.B.T), name="the output in evaluation"
    )


def merged_weight(merge):
    weight, A, B = expect.randn(5, 6), expect.randn(2, 6, seed=1), expect.randn(5, 2, seed=2)
    mistakes = {
        "scale the update by alpha / rank.": weight + B @ A,
        "divide alpha by the rank.": weight + 8 * B @ A,
        "divide by the rank, the number of rows of A.": weight + 8 / 5 * B @ A,
        "divide by the rank, not by the number of columns of A.": weight + 8 / 6 * B @ A,
    }
    result = expect.unchanged(lambda *arguments: merge(*arguments, 8.0), weight, A, B)
    expect.close(result, weight + 4 * B @ A, mistakes)


def merged_layer_gives_the_same_outputs(merge):
    weight, A, B = expect.randn(4, 4), expect.randn(3, 4, seed=1), expect.randn(4, 3, seed=2)
    x = expect.randn(7, 4, seed=3)
    right = x @ weight.T + 2 * (x @ A.T @ B.T)
    mistakes = {
        "the update of the weight is B A, not its transpose.": x @ (weight + 2 * (B @ A).T).T
    }
    expect.close(x @ merge(weight, A, B, 6.0).T, right, mistakes, "the output")


def fraction_of_a_network(trainable_fraction):
    net = nn.Sequential(
        nn.Embedding(10, 8), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4, bias=False)
    )
    own, added = 80 + 8 * 16 + 16 + 64, 2 * (24 + 20)
    mistakes = {
        "the denominator counts the parameters of LoRA, too.": added / own,
        "A has rank · in and B has out · rank parameters.": 2
        * (8 * 16 + 64)
        / (own + 2 * (8 * 16 + 64)),
        "count A and B of every linear layer, and no embedding.": (added + 36) / (own + added + 36),
        "count all parameters of the network, also embeddings and biases.": added / (added + 192),
    }
    expect.close(trainable_fraction(net, 2), added / (own + added), mistakes)


def fraction_without_linear_layers(trainable_fraction):
    expect.close(trainable_fraction(nn.Embedding(3, 2), 4), 0.0)


def low_rank_error(best_low_rank_update):
    update = expect.randn(7, 5)
    values = torch.linalg.svdvals(update)
    for rank in (1, 3, 5):
        A, B = expect.parts(best_low_rank_update(update, rank), 2)
        shapes = tuple(A.shape), tuple(B.shape)
        expect.equal(shapes, ((rank, 5), (7, rank)), name="the shapes of A and B")
        U, S, V = torch.linalg.svd(update, full_matrices=False)
        mistakes = {
            "the singular values are missing: scale one factor by them.": U[:, :rank] @ V[:rank],
            "scale one factor by the singular values, not both.": (U[:, :rank] * S[:rank] ** 2)
            @ V[:rank],
            "keep the largest singular values.": (U[:, -rank:] * S[-rank:]) @ V[-rank:],
        }
        right = (U[:, :rank] * S[:rank]) @ V[:rank]
        expect.close(B @ A, right, mistakes, f"the product of rank {rank}")
        expect.close((update - B @ A).norm(), values[rank:].norm(), name="the error", atol=1e-6)


TASKS = [
    Task(
        "LoRALinear", [output_at_the_start, outputs_of_lora, trainable_parameters, dropout_of_lora]
    ),
    Task("merge", [merged_weight, merged_layer_gives_the_same_outputs]),
    Task("trainable_fraction", [fraction_of_a_network, fraction_without_linear_layers]),
    Task("best_low_rank_update", [low_rank_error]),
]
