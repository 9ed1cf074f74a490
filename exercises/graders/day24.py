"""Grader of day 24."""

import math

import torch
import torch.nn.functional as F

from exercises import expect
from exercises.grading import Task


def size_of_gpt2(gpt_parameters):
    right = 124_439_808
    mistakes = {
        "the tied output layer has no parameters of its own.": right + 50257 * 768,
        "the position embedding is missing.": right - 1024 * 768,
        "the last layer norm is missing.": right - 2 * 768,
        "the biases of attention and feed-forward network are missing.": right - 12 * 9 * 768,
        "a layer norm has a weight and a bias.": right - 25 * 768,
        "the layer norms of the blocks are missing.": right - 12 * 4 * 768,
    }
    expect.equal(gpt_parameters(50257, 1024, 768, 12), right, mistakes)


def sizes_of_other_models(gpt_parameters):
    expect.equal(gpt_parameters(50257, 1024, 1600, 48), 1_557_611_200)
    untied = gpt_parameters(65, 256, 384, 6, tied=False) - gpt_parameters(65, 256, 384, 6)
    expect.equal(untied, 65 * 384, name="the size of the output layer")


def values_of_gelu(gelu):
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    mistakes = {
        "GPT-2 uses the tanh approximation, not erf.": F.gelu(x),
        "this is the sigmoid approximation; GPT-2 uses tanh.": x * torch.sigmoid(1.702 * x),
        "the cubic term is missing.": 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * x)),
        "the factor 0.5 is missing.": 2 * F.gelu(x, approximate="tanh"),
    }
    expect.close(gelu(x), F.gelu(x, approximate="tanh"), mistakes)


def gradient_of_gelu(gelu):
    x = torch.linspace(-4, 4, 9, dtype=torch.float64, requires_grad=True)
    expect.true(
        torch.autograd.gradcheck(gelu, x, raise_exception=False),
        "the gradient is wrong.",
        "use torch functions.",
    )


def _decode(cached_attention, sizes):
    q, k, v = (expect.randn(2, 3, 6, 4, seed=seed) for seed in range(3))
    cache, outputs, start = None, [], 0
    for size in sizes:
        new = slice(start, start + size)
        output, cache = expect.parts(
            cached_attention(q[:, :, new], k[:, :, new], v[:, :, new], cache), 2
        )
        outputs.append(output)
        start += size
    return torch.cat(outputs, dim=2), cache, (q, k, v)


def one_position_at_a_time(cached_attention):
    result, cache, (q, k, v) = _decode(cached_attention, [1] * 6)
    mistakes = {
        "attend to the cached keys, too.": v,
        "divide the scores by √D.": F.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=1.0
        ),
    }
    expect.close(result, F.scaled_dot_product_attention(q, k, v, is_causal=True), mistakes)
    expect.close(expect.parts(cache, 2)[0], k, name="the cached keys")
    expect.close(cache[1], v, name="the cached values")


def several_positions_at_a_time(cached_attention):
    for sizes in ([6], [2, 3, 1]):
        result, _, (q, k, v) = _decode(cached_attention, sizes)
        positions = torch.arange(6)
        ends = torch.repeat_interleave(torch.tensor(sizes).cumsum(0), torch.tensor(sizes))
        block = F.scaled_dot_product_attention(q, k, v, positions < ends[:, None])
        first = torch.cat([torch.arange(size) for size in sizes])
        shifted = F.scaled_dot_product_attention(q, k, v, positions <= first[:, None])
        mistakes = {
            "a new position must not attend to later new ones.": block,
            "the queries are the last positions: shift the mask by the length of the cache.": shifted,
        }
        right = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        expect.close(result, right, mistakes, f"the result for {sizes} new positions")


def loss_of_a_batch(language_model_loss):
    logits, tokens = expect.randn(2, 5, 7), torch.tensor([[1, 2, 3, 4, 5], [6, 5, 0, 1, 1]])
    right = F.cross_entropy(logits[:, :4].reshape(-1, 7), tokens[:, 1:].reshape(-1))
    mistakes = {
        "the logits at t predict token t + 1: shift.": F.cross_entropy(logits.mT, tokens),
        "shifted in the wrong direction.": F.cross_entropy(logits[:, 1:].mT, tokens[:, :-1]),
        "take the mean over positions.": right * 8,
        "the last position has no target; do not wrap around.": F.cross_entropy(
            logits.mT, tokens.roll(-1, 1)
        ),
    }
    expect.close(language_model_loss(logits, tokens), right, mistakes)


def loss_has_a_gradient(language_model_loss):
    logits = expect.randn(1, 3, 4).requires_grad_()
    loss = language_model_loss(logits, torch.tensor([[1, 2, 3]]))
    expect.true(
        isinstance(loss, torch.Tensor) and loss.requires_grad,
        "the loss has no gradient.",
        "do not call item().",
    )


def probabilities(next_token_probabilities):
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.0, 3.0, 1.0, 2.0]])
    top = torch.tensor([[2.0, 1.0], [3.0, 2.0]])

    def spread(values):
        right = torch.zeros(2, 4)
        right[0, :2], right[1, 1], right[1, 3] = values[0], values[1, 0], values[1, 1]
        return right

    cut = (logits / 0.5).softmax(-1)
    zeroed = logits * (spread(torch.ones(2, 2)) > 0)
    mistakes = {
        "divide by the temperature, do not multiply.": spread((top * 0.5).softmax(-1)),
        "normalize after the choice of the top k.": spread(cut.topk(2).values),
        "a token that is not kept has the logit -inf, not 0.": (zeroed / 0.5).softmax(-1),
        "keep only the top k.": cut,
    }
    right = spread((top / 0.5).softmax(-1))
    expect.close(
        expect.unchanged(lambda x: next_token_probabilities(x, 0.5, 2), logits), right, mistakes
    )


def limits_of_sampling(next_token_probabilities):
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    right = torch.tensor([[0.0, 1.0, 0.0]])
    hint = {"temperature 0 divides by zero: treat it apart.": torch.full((1, 3), torch.nan)}
    expect.close(
        next_token_probabilities(logits, 0.0, 3), right, hint, "the result for temperature 0"
    )
    expect.close(
        next_token_probabilities(logits, 1.0, 100),
        logits.softmax(-1),
        name="the result for top_k > V",
    )


TASKS = [
    Task("gpt_parameters", [size_of_gpt2, sizes_of_other_models]),
    Task("gelu", [values_of_gelu, gradient_of_gelu]),
    Task("cached_attention", [one_position_at_a_time, several_positions_at_a_time]),
    Task("language_model_loss", [loss_of_a_batch, loss_has_a_gradient]),
    Task("next_token_probabilities", [probabilities, limits_of_sampling]),
]
