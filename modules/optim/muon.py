"""Muon: steps whose singular values are all one, for the matrices inside of a net."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import AdamW, Optimizer

from engine.precision import has_native_bfloat16

# Of the polynomial a x + b x³ + c x⁵ that is applied five times to all singular values at once: the
# slope at zero is as steep as it goes, so that small ones grow fast; they end between 0.7 and 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
TINY = 1e-7


class Muon(Optimizer):
    """Momentum made orthogonal, for the matrices of hidden layers; AdamW for all else.

    With the gradient G of a matrix of n x m weights W, and B = 0 at first:

        B ← μ B + (1 - μ) G                          the momentum
        U = μ B + (1 - μ) G                          as Nesterov looks ahead
        O ≈ (U Uᵀ)^(-1/2) U                          singular vectors of U, singular values of 1
        W ← W - lr (λ W + 0.2 sqrt(max(n, m)) O)

    A gradient is mostly a few strong directions; O steps as far along all the weak ones. Jordan et
    al. 2024, "Muon: an optimizer for hidden layers in neural networks", where O comes of five
    Newton-Schulz iterations; the factor of lr, which gives a step the size of one of AdamW's, is
    that of Liu et al. 2025, "Muon is scalable for LLM training", section 2.2. So lr and λ are those
    for AdamW. Gains and biases are no maps from one space to another, nor are the tables that a net
    begins with and the layer that makes its logits, whose rows stand for one token or class each:
    they are AdamW's.

    The numbers are those of torch.optim.Muon (`adjust_lr_fn="match_rms_adamw"`), which takes
    matrices only, one by one; here all of one shape are multiplied at once.

    Args:
        params: Weights; those of two dimensions are taken for matrices until `leave_to_adamw`.
        lr: Rate, for matrices and all else.
        weight_decay: Decay λ.
        momentum: Momentum μ of the matrices, in [0, 1).
        betas: AdamW's, for all else.
        eps: AdamW's, for all else.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"Muon: momentum must be 0 or more and below 1, not {momentum}.")
        weights = list(params)
        self._adamw = AdamW(
            weights, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True
        )
        matrices = [weight for weight in weights if weight.ndim == 2]
        others = [weight for weight in weights if weight.ndim != 2]
        # What tells the two kinds of groups apart is `momentum`; groups that are added are AdamW's.
        groups: list[dict[str, Any]] = [{"params": matrices, "momentum": momentum}]
        super().__init__([*groups, {"params": others}], self._adamw.defaults)

    def leave_to_adamw(self, weights: Iterable[Tensor]) -> None:
        """Takes for no matrices what has two dimensions for another reason."""
        chosen = {id(weight) for weight in weights}
        matrices, others = self.param_groups[:2]
        others["params"] += [w for w in matrices["params"] if id(w) in chosen]
        matrices["params"] = [w for w in matrices["params"] if id(w) not in chosen]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns what the closure does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if "momentum" in group:
                self._step_matrices(group)
        # The state is one, and its owner may have been given another: it resumes.
        self._adamw.param_groups = [g for g in self.param_groups if "momentum" not in g]
        self._adamw.state = self.state
        self._adamw.step()
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        weights = [weight for weight in group["params"] if weight.grad is not None]
        if not weights:
            return
        gradients = [weight.grad for weight in weights]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        momenta = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        updates = torch._foreach_lerp(gradients, momenta, group["momentum"])  # noqa: SLF001  # as torch.optim does
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        alike = defaultdict(list)
        for weight, update in zip(weights, updates, strict=True):
            alike[tuple(sorted(weight.shape)), weight.device].append((weight, update))
        for ((_, longer), _), pairs in alike.items():
            stack = torch.stack([wide(whole(update)) for _, update in pairs])  # (L, n, m)
            rate = group["lr"] * 0.2 * longer**0.5
            for (weight, _), step in zip(pairs, orthogonal(stack), strict=True):
                step = step.mT if weight.shape[0] > weight.shape[1] else step
                weight.add_(share(step, weight), alpha=-rate)


def orthogonal(matrices: Tensor) -> Tensor:
    """Next to the nearest matrices of orthonormal rows, (L, n, m) to (L, n, m) with n ≤ m.

    A singular value s of a matrix becomes one between 0.7 and 1.2, unless it is tiny.
    """
    a, b, c = COEFFICIENTS
    fast = has_native_bfloat16(matrices.device)
    x = matrices.to(torch.bfloat16 if fast else torch.float32)
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=TINY)  # no singular value above 1
    for _ in range(5):
        # (a + b (x xᵀ) + c (x xᵀ)²) x
        square = x @ x.mT  # (L, n, n)
        factor = torch.baddbmm(square, square, square, beta=b, alpha=c)  # (L, n, n)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        x = factor @ x  # (L, n, m)
    return x.to(matrices.dtype)


def wide(matrix: Tensor) -> Tensor:
    """Lying down: the products of its rows are then the fewer ones."""
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which this process has a share."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's share of it, where it has one of `like`."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
