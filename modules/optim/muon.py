"""Muon for the weight matrices of hidden layers, AdamW for all other parameters."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer


class Muon(Optimizer):
    """Optimize matrices by torch.optim.Muon and all other parameters by AdamW.

    For the gradient G of a weight matrix W of shape (n, m), with B = 0 initially:

        B ← μ B + (1 - μ) G                          momentum
        U = μ B + (1 - μ) G                          Nesterov
        O ≈ (U Uᵀ)^(-1/2) U                          singular vectors of U, singular values of 1
        W ← W - lr (λ W + 0.2 sqrt(max(n, m)) O)

    Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", with O from five
    Newton–Schulz iterations. The factor of lr, from Liu et al. 2025, "Muon is scalable for LLM
    training", section 2.2, gives an update the RMS of AdamW's, so lr and λ are those of AdamW.

    AdamW optimizes what is not a map between hidden spaces: gains, biases, embedding tables and the
    layer that computes the logits. Tasks pass the latter two to `exclude_from_muon`.

    Args:
        params: Parameters; those with two dimensions are matrices unless excluded.
        lr: Learning rate of all parameters.
        weight_decay: Weight decay λ.
        momentum: Momentum μ of the matrices, in [0, 1).
        betas: Betas of AdamW.
        eps: Epsilon of AdamW.
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
            raise ValueError(f"Muon: momentum must be in [0, 1), got {momentum}.")
        parameters = list(params)
        self._adamw = AdamW(
            parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True
        )
        matrices = [parameter for parameter in parameters if parameter.ndim == 2]
        others = [parameter for parameter in parameters if parameter.ndim != 2]
        self._muon = torch.optim.Muon([{"params": matrices}], adjust_lr_fn="match_rms_adamw")
        # Groups with `momentum` are Muon's; groups that are added later are AdamW's.
        groups: list[dict[str, Any]] = [{"params": matrices, "momentum": momentum}]
        super().__init__([*groups, {"params": others}], self._adamw.defaults)

    def exclude_from_muon(self, parameters: Iterable[Tensor]) -> None:
        """Let AdamW optimize parameters that have two dimensions but are not hidden matrices."""
        excluded = {id(parameter) for parameter in parameters}
        matrices, others = self.param_groups[:2]
        others["params"] += [p for p in matrices["params"] if id(p) in excluded]
        matrices["params"] = [p for p in matrices["params"] if id(p) not in excluded]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one step and return the loss of the closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Groups and state are shared, since schedules and a resumed run replace them here.
        self._muon.param_groups = [
            self._muon.defaults | {k: g[k] for k in ("params", "lr", "weight_decay", "momentum")}
            for g in self.param_groups
            if "momentum" in g
        ]
        self._adamw.param_groups = [g for g in self.param_groups if "momentum" not in g]
        for optimizer in (self._muon, self._adamw):
            optimizer.state = self.state
            optimizer.step()
        return loss
