"""Optimizers from first principles, from SGD to AdamW, each with its equation.

Each turns a gradient g into a step and adds to the previous one:

    SGD        a step against the gradient
    Momentum   a running sum of gradients, the velocity (Polyak 1964)
    Nesterov   the gradient after the velocity's next step (Nesterov 1983; Sutskever et al. 2013)
    RMSprop    a step size per weight, from the mean square of its gradients (Hinton 2012)
    Adam       mean and mean square of gradients, both bias-corrected (Kingma & Ba 2014)
    AdamW      weight decay decoupled from the gradient (Loshchilov & Hutter 2017)

Each replaces its namesake in torch.optim (Momentum and Nesterov are torch's SGD with `momentum` and
`nesterov`): it has the same arguments and defaults, and gives the same weights. Torch's are faster,
since they update all weights in few kernels.

    python train.py fit --config configs/digits/mlp.yaml \\
      --model.optimizer modules.scratch.optimizers.Adam --model.optimizer.lr 0.003
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT


class ScratchOptimizer(Optimizer):
    """Base of all optimizers: update each weight that has a gradient."""

    def __init__(self, params: ParamsT, **defaults: Any) -> None:
        for name, value in defaults.items():
            # At β = 1 or α = 1 a running average would ignore new gradients.
            low, high = (0.0, 1.0) if name in ("betas", "alpha") else (0.0, float("inf"))
            for number in value if isinstance(value, tuple | list) else (value,):
                if not low <= number < high:
                    upper = "" if high == float("inf") else f" and below {high:g}"
                    raise ValueError(
                        f"{type(self).__name__}: {name} must be at least 0{upper}, got {value}."
                    )
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one optimization step.

        Args:
            closure: Recomputes the loss and its gradients; Lightning passes one.

        Returns:
            The result of the closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self.update(weight, weight.grad, self.state[weight], **group)
        return loss

    @abstractmethod
    def update(self, w: Tensor, g: Tensor, state: dict[str, Any], **group: Any) -> None:
        """Update one weight in place.

        Args:
            w: The weight.
            g: Its gradient, of the same shape, not to be modified.
            state: The state of this weight; empty before the first step.
            **group: The options of the weight's parameter group.
        """


class SGD(ScratchOptimizer):
    """w ← w - lr · g.

    Args:
        params: Parameters, or parameter groups.
        lr: Learning rate, at least 0.
        weight_decay: L2 penalty λ, at least 0.
    """

    def __init__(self, params: ParamsT, lr: float = 0.001, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay)

    def update(self, w: Tensor, g: Tensor, state: dict[str, Any], **group: Any) -> None:
        # g ← g + λ w
        g = g + group["weight_decay"] * w
        # w ← w - lr · g
        w -= group["lr"] * g


class Momentum(ScratchOptimizer):
    """v ← μ v + g;  w ← w - lr · v.

    Args:
        params: Parameters, or parameter groups.
        lr: Learning rate, at least 0.
        momentum: Decay μ of the velocity, at least 0; steps grow to lr / (1 - μ).
        weight_decay: L2 penalty λ, at least 0.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.001,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def update(self, w: Tensor, g: Tensor, state: dict[str, Any], **group: Any) -> None:
        # g ← g + λ w
        g = g + group["weight_decay"] * w
        # w ← w - lr · v
        w -= group["lr"] * velocity(g, state, group["momentum"])


class Nesterov(Momentum):
    """v ← μ v + g;  w ← w - lr · (g + μ v).

    The next step moves the weight by μ v whatever its gradient is. Stepping along g + μ v includes
    this part in advance, so that the next gradient is evaluated after it.

    Args:
        params: Parameters, or parameter groups.
        lr: Learning rate, at least 0.
        momentum: Decay μ of the velocity, at least 0.
        weight_decay: L2 penalty λ, at least 0.
    """

    def update(self, w: Tensor, g: Tensor, state: dict[str, Any], **group: Any) -> None:
        # g ← g + λ w
        g = g + group["weight_decay"] * w
        # w ← w - lr · (g + μ v)
        w -= group["lr"] * (g + group["momentum"] * velocity(g, state, group["momentum"]))


def velocity(g: Tensor, state: dict[str, Any], momentum: float) -> Tensor:
    """Update and return the velocity of a weight."""
    if "momentum_buffer" not in state:
        state["momentum_buffer"] = torch.zeros_like(g)
    v: Tensor = state["momentum_buffer"]
    # v ← μ v + g
    v.mul_(momentum).add_(g)
    return v


class RMSprop(ScratchOptimizer):
    """s ← α s + (1 - α) g²;  w ← w - lr · g / (√s + ε).

    Args:
        params: Parameters, or parameter groups.
        lr: Learning rate, at least 0; about the step size of each weight.
        alpha: Decay α of the mean square, in [0, 1).
        eps: ε, at least 0; limits the steps of weights with tiny gradients.
        weight_decay: L2 penalty λ, at least 0.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay)

    def update(self, w: Tensor, g: Tensor, state: dict[str, Any], **group: Any) -> None:
        if not state:
            state["square_avg"] = torch.zeros_like(w)
        s, alpha = state["square_avg"], group["alpha"]
        # g ← g + λ w
        g = g + group["weight_decay"] * w
        # s ← α s + (1 - α) g²
        s.mul_(alpha).add_((1 - alpha) * g**2)
        # w ← w - lr · g / (√s + ε)
        w -= group["lr"] * g / (s.sqrt() + group["eps"])


class Adam(ScratchOptimizer):
    """m ← β₁ m + (1 - β₁) g;  s ← β₂ s + (1 - β₂) g²;  w ← w - lr · m̂ / (√ŝ + ε).

    m and s start at zero and are biased towards it: after t steps the weights of the average sum to
    1 - βᵗ, so m̂ = m / (1 - β₁ᵗ) and ŝ = s / (1 - β₂ᵗ).

    Args:
        params: Parameters, or parameter groups.
        lr: Learning rate, at least 0; about the step size of each weight.
        betas: Decay β₁ of the mean and β₂ of the mean square, each in [0, 1).
        eps: ε, at least 0; limits the steps of weights with tiny gradients.
        weight_decay: L2 penalty λ, at least 0.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def update(self, w: Tensor, g: Tensor, state: dict[str, Any], **group: Any) -> None:
        # g ← g + λ w
        g = g + group["weight_decay"] * w
        # w ← w - lr · m̂ / (√ŝ + ε)
        w -= group["lr"] * adam_direction(w, g, state, group["betas"], group["eps"])


class AdamW(ScratchOptimizer):
    """w ← w - lr · λ w;  then Adam's step without weight decay.

    Adam divides the decay λ w by √ŝ with the rest of the gradient, so that weights with large
    gradients hardly decay. Here all weights decay at the same rate.

    Args:
        params: Parameters, or parameter groups.
        lr: Learning rate, at least 0; about the step size of each weight.
        betas: Decay β₁ of the mean and β₂ of the mean square, each in [0, 1).
        eps: ε, at least 0; limits the steps of weights with tiny gradients.
        weight_decay: λ, at least 0; each step multiplies every weight by 1 - lr · λ.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def update(self, w: Tensor, g: Tensor, state: dict[str, Any], **group: Any) -> None:
        # w ← w - lr · λ w
        w -= group["lr"] * group["weight_decay"] * w
        # w ← w - lr · m̂ / (√ŝ + ε)
        w -= group["lr"] * adam_direction(w, g, state, group["betas"], group["eps"])


def adam_direction(
    w: Tensor, g: Tensor, state: dict[str, Any], betas: tuple[float, float], eps: float
) -> Tensor:
    """Update the averages and return m̂ / (√ŝ + ε), roughly in [-1, 1]."""
    if not state:
        state.update(step=0, exp_avg=torch.zeros_like(w), exp_avg_sq=torch.zeros_like(w))
    state["step"] += 1
    m, s, t = state["exp_avg"], state["exp_avg_sq"], state["step"]
    beta1, beta2 = betas
    # m ← β₁ m + (1 - β₁) g
    m.mul_(beta1).add_((1 - beta1) * g)
    # s ← β₂ s + (1 - β₂) g²
    s.mul_(beta2).add_((1 - beta2) * g**2)
    # m̂ = m / (1 - β₁ᵗ);  ŝ = s / (1 - β₂ᵗ)
    m_hat, s_hat = m / (1 - beta1**t), s / (1 - beta2**t)
    return m_hat / (s_hat.sqrt() + eps)
