"""Batch norm that loses nothing where a net is compiled for a CPU."""

from typing import Any

import torch
from torch import Tensor, nn

from modules.nets.layers.compiler import compiles_training_on_cpu


class BatchNorm2d(nn.BatchNorm2d):
    """torch's own, with the same weights, written out where it is compiled to train on a CPU.

    The compiler takes torch's apart into one long sum over all pixels of a channel, which it sums
    up by a slow and careful helper, and into a formula that it computes anew at every pixel, square
    root included. Written out, there are short sums over each picture, and what belongs to a
    channel is computed once a channel. Anywhere else it is torch's own that runs.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same, each channel of mean 0 and variance 1 before gain and shift."""
        if not (compiles_training_on_cpu(x) and self._is_the_usual(x)):
            return super().forward(x)
        buffers: Any = self
        n = x.numel() // x.shape[1]
        with torch.no_grad():
            mean, variance = mean_and_variance(x, buffers.running_mean)
            inverse = torch.rsqrt(variance + self.eps)  # kept for later, and so computed once
        y: Tensor = Normalise.apply(x, self.weight, self.bias, mean, inverse)
        with torch.no_grad():
            buffers.running_mean.lerp_(mean, self.momentum)
            buffers.running_var.lerp_(variance * (n / (n - 1)), self.momentum)
            buffers.num_batches_tracked.add_(1)
        return y

    def _is_the_usual(self, x: Tensor) -> bool:
        if not (self.affine and self.track_running_stats and self.momentum is not None):
            return False
        several = x.numel() > x.shape[1]  # torch's own refuses a single value a channel
        full = self.weight.dtype == torch.float32
        half = x.dtype in (torch.float32, torch.bfloat16)
        return self.training and several and full and half


def mean_and_variance(x: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
    """Of each channel over all n pixels, (C,) and (C,).

        μ = k + E[x - k]        σ² = E[(x - k)²] - E[x - k]²

    for any k: near the mean, here the running one, nothing is lost in the difference.
    """
    n = x.numel() // x.shape[1]
    moved = x.float() - per_pixel(near)  # (B, C, H, W)
    off = moved.sum((2, 3)).sum(0) / n  # (C,)
    variance = (moved * moved).sum((2, 3)).sum(0) / n - off * off  # (C,)
    return near + off, variance.clamp_min(0)


class Normalise(torch.autograd.Function):
    """Ioffe & Szegedy 2015, "Batch normalization", algorithm 1 and section 3, over all n pixels.

        y = s x + (β - s μ)        s = γ / sqrt(σ² + ε)

    With p = Σ g (x - μ) / sqrt(σ² + ε), which is the gradient of γ, and q = Σ g, that of β,

        ∂x = s g - s / n · (p (x - μ) / sqrt(σ² + ε) + q)

    where μ and σ² are functions of x, though they are given.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, shift: Tensor, mean: Tensor, inverse: Tensor
    ) -> Tensor:
        """x (B, C, H, W), all else (C,), `inverse` being 1 / sqrt(σ² + ε)."""
        ctx.save_for_backward(x, gain, mean, inverse)
        scale = gain * inverse
        y = x.float() * per_pixel(scale) + per_pixel(shift - scale * mean)  # (B, C, H, W)
        # A cast to what it is already costs γ and β their gradients where torch 2.11 compiles it.
        return y if y.dtype == x.dtype else y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of y to those of what was given."""
        x, gain, mean, inverse = ctx.saved_tensors
        n = x.numel() // x.shape[1]
        scale = gain * inverse
        g = gradients[0].float()  # (B, C, H, W)
        q = g.sum((2, 3))  # (B, C)
        p = (g * (x.float() - per_pixel(mean))).sum((2, 3)) * inverse  # (B, C)
        # ∂x = s g + a x + b: sums over pictures come last, as the compiler keeps what a sum gives.
        a = (p * (scale * inverse / -n)).sum(0)  # (C,)
        b = ((q - p * (mean * inverse)) * (scale / -n)).sum(0)  # (C,)
        gradient = g * per_pixel(scale) + x.float() * per_pixel(a) + per_pixel(b)  # (B, C, H, W)
        of_gain, of_shift = p.sum(0).to(gain.dtype), q.sum(0).to(gain.dtype)
        return gradient.to(x.dtype), of_gain, of_shift, None, None


def per_pixel(values: Tensor) -> Tensor:
    """One value a channel, (C,), as (C, 1, 1)."""
    return values[:, None, None]
