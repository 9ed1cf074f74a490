"""Solutions of day 48."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def depends_on_the_future(net: nn.Module, tokens: Tensor, vocab_size: int) -> bool:
    training = net.training
    net.eval()
    before = net(tokens)
    found = False
    for position in range(1, tokens.shape[1]):
        changed = tokens.clone()
        changed[:, position] = (changed[:, position] + 1) % vocab_size
        after = net(changed)
        found |= not torch.allclose(before[:, :position], after[:, :position], atol=1e-6)
    net.train(training)
    return found


def mixes_samples(net: nn.Module, inputs: Tensor) -> bool:
    inputs = inputs.detach().clone().requires_grad_()
    for index, output in enumerate(net(inputs)):
        (gradient,) = torch.autograd.grad(output.square().sum(), inputs, retain_graph=True)
        gradient[index] = 0
        if gradient.abs().max() > 1e-9:
            return True
    return False


def untrained_parameters(net: nn.Module, loss: Tensor) -> list[str]:
    named = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    gradients = torch.autograd.grad(
        loss, [parameter for _, parameter in named], allow_unused=True, retain_graph=True
    )
    return [
        name
        for (name, _), gradient in zip(named, gradients, strict=True)
        if gradient is None or not gradient.any()
    ]


def steps_to_overfit(
    net: nn.Module, inputs: Tensor, labels: Tensor, lr: float, max_steps: int, target: float = 0.01
) -> int | None:
    optimizer = torch.optim.Adam(net.parameters(), lr)
    for step in range(max_steps + 1):
        loss = F.cross_entropy(net(inputs), labels)
        if loss.item() < target:
            return step
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return None
