"""Samples packed into one row: a token attends to its own document only."""

import pytest
import torch
from torch import Tensor

from modules.nets import GPT

V, T = 23, 16
LENGTHS = ([5, 1, 7, 3], [16], [2, 14])  # of the documents in each row


def gpt(**options) -> GPT:
    torch.manual_seed(0)
    net = GPT(V, **{"context": T, "num_layers": 2, "num_heads": 4, "dim": 32} | options)
    with torch.no_grad():  # far from uniform attention
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return net


def packed() -> tuple[Tensor, Tensor]:
    """Return tokens and document numbers, which need not start at 0 or increase; both (3, T)."""
    tokens = torch.randint(V, (len(LENGTHS), T), generator=torch.Generator().manual_seed(1))
    numbers = [torch.tensor([7, 3, 4, 0])[: len(row)] for row in LENGTHS]
    documents = [
        n.repeat_interleave(torch.tensor(r)) for n, r in zip(numbers, LENGTHS, strict=True)
    ]
    return tokens, torch.stack(documents)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_packed_logits_equal_those_of_each_document_alone(positions, attention):
    net = gpt(positions=positions, attention=attention, num_kv_heads=2)
    tokens, documents = packed()
    logits, state = net(tokens, documents=documents)
    assert state is None
    for row, lengths in enumerate(LENGTHS):
        parts = zip(tokens[row].split(lengths), logits[row].split(lengths), strict=True)
        for alone, together in parts:
            torch.testing.assert_close(together, net(alone[None])[0][0])
    assert not torch.allclose(logits, net(tokens)[0])


def test_one_document_per_row_equals_no_documents():
    tokens, _ = packed()
    net = gpt()
    torch.testing.assert_close(net(tokens, documents=torch.zeros_like(tokens))[0], net(tokens)[0])


def test_gradients_of_a_packed_row_are_those_of_its_documents():
    tokens, documents = packed()
    gradients = []
    for rows in ((tokens,), tokens[0].split(LENGTHS[0])):
        net = gpt().double()  # sums of squares have rounding errors of 1e-4 in float32
        if len(rows) == 1:
            net(tokens[:1], documents=documents[:1])[0].square().sum().backward()
        else:
            sum(net(row[None])[0].square().sum() for row in rows).backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    torch.testing.assert_close(*gradients)


def test_documents_cannot_be_combined_with_a_state():
    net = gpt()
    tokens, documents = packed()
    with pytest.raises(ValueError, match="state"):
        net(tokens, net.init_state(3), documents)
