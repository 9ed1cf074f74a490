"""The optimizers from first principles: from the plain gradient to AdamW, each with its equation.

All of them turn a gradient g into a step; what each adds to the one above it:

    SGD        step down the slope
    Momentum   a velocity remembers the way so far (Polyak 1964)
    Nesterov   and looks at the slope where it will carry us (Nesterov 1983; Sutskever et al. 2013)
    RMSprop    a rate of its own for each weight, by the size of its gradients (Hinton 2012)
    Adam       velocity and size together, both corrected at the start (Kingma & Ba 2014)
    AdamW      weight decay beside the step and not in the gradient (Loshchilov & Hutter 2017)

Each takes the place of its namesake in torch.optim (Momentum and Nesterov are torch's SGD with
`momentum` and `nesterov`): its arguments have the same names and defaults, and a hundred steps end
at the same weights. Torch's are faster: they update all the weights in one go.

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


class Written(Optimizer):
    """What all of them share: go through the weights that have a gradient, and update each."""

    def __init__(self, params: ParamsT, **defaults: Any) -> None:
        for name, value in defaults.items():
            # β and α are averages' shares of the past: at 1 nothing new would ever count.
            low, high = (0.0, 1.0) if name in ("betas", "alpha") else (0.0, float("inf"))
            for number in value if isinstance(value, tuple | list) else (value,):
                if not low <= number < high:
                    upper = "" if high == float("inf") else f" and below {high:g}"
                    raise ValueError(
                        f"{type(self).__name__}: {name} must be at least 0{upper}, not {value}."
                    )
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every weight once.

        Args:
            closure: Computes the loss and its gradients anew; Lightning passes one.

        Returns:
            What the closure returned.
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
        """Change one weight in place.

        Args:
            w: The weight.
            g: Its gradient, of the same shape, which must stay as it is.
            state: What the optimizer remembers about this weight; empty before the first step.
            **group: The arguments of the weight's group.
        """


class SGD(Written):
    """w ← w - lr · g.

    Args:
        params: Weights, or groups of them.
        lr: Learning rate, at least 0.
        weight_decay: Share λ of the weight that is added to its gradient, at least 0.
    """

    def __init__(self, params: ParamsT, lr: float = 0.001, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay)

    def update(self, w: Tensor, g: Tensor, state: dict[str, Any], **group: Any) -> None:
        # g ← g + λ w
        g = g + group["weight_decay"] * w
        # w ← w - lr · g
        w -= group["lr"] * g


class Momentum(Written):
    """v ← μ v + g;  w ← w - lr · v.

    Args:
        params: Weights, or groups of them.
        lr: Learning rate, at least 0.
        momentum: Share μ of the velocity that is kept, at least 0; steps grow to lr / (1 - μ).
        weight_decay: Share λ of the weight that is added to its gradient, at least 0.
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

    The velocity will carry the weight on by μ v whatever comes; stepping along g + μ v takes that
    part of the next step at once, so the next gradient is already that of the place ahead.

    Args:
        params: Weights, or groups of them.
        lr: Learning rate, at least 0.
        momentum: Share μ of the velocity that is kept, at least 0.
        weight_decay: Share λ of the weight that is added to its gradient, at least 0.
    """

    def update(self, w: Tensor, g: Tensor, state: dict[str, Any], **group: Any) -> None:
        # g ← g + λ w
        g = g + group["weight_decay"] * w
        # w ← w - lr · (g + μ v)
        w -= group["lr"] * (g + group["momentum"] * velocity(g, state, group["momentum"]))


def velocity(g: Tensor, state: dict[str, Any], momentum: float) -> Tensor:
    """The weight's velocity after this gradient."""
    if "momentum_buffer" not in state:
        state["momentum_buffer"] = torch.zeros_like(g)
    v: Tensor = state["momentum_buffer"]
    # v ← μ v + g
    v.mul_(momentum).add_(g)
    return v


class RMSprop(Written):
    """s ← α s + (1 - α) g²;  w ← w - lr · g / (√s + ε).

    Args:
        params: Weights, or groups of them.
        lr: Learning rate, at least 0: about the size of each weight's step.
        alpha: Share α of the mean square that is kept, in [0, 1).
        eps: ε, at least 0; keeps weights with tiny gradients from jumping.
        weight_decay: Share λ of the weight that is added to its gradient, at least 0.
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


class Adam(Written):
    """m ← β₁ m + (1 - β₁) g;  s ← β₂ s + (1 - β₂) g²;  w ← w - lr · m̂ / (√ŝ + ε).

    m and s start at zero and are too small at first: after t steps the weights of their averages
    sum up to 1 - βᵗ, so m̂ = m / (1 - β₁ᵗ) and ŝ = s / (1 - β₂ᵗ).

    Args:
        params: Weights, or groups of them.
        lr: Learning rate, at least 0: about the size of each weight's step.
        betas: Shares β₁ of the mean and β₂ of the mean square that are kept, each in [0, 1).
        eps: ε, at least 0; keeps weights with tiny gradients from jumping.
        weight_decay: Share λ of the weight that is added to its gradient, at least 0.
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


class AdamW(Written):
    """w ← w - lr · λ w;  then Adam's step without weight decay.

    In Adam the decay λ w is divided by √ŝ like the rest of the gradient: weights with large
    gradients hardly decay at all. Here all decay at the same rate.

    Args:
        params: Weights, or groups of them.
        lr: Learning rate, at least 0: about the size of each weight's step.
        betas: Shares β₁ of the mean and β₂ of the mean square that are kept, each in [0, 1).
        eps: ε, at least 0; keeps weights with tiny gradients from jumping.
        weight_decay: λ, at least 0: each step takes the share lr · λ off every weight.
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
    """m̂ / (√ŝ + ε) after this gradient: about -1 … 1 for each weight."""
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
