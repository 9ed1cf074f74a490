"""Network layers in NumPy with hand-written forward and backward passes.

Back-propagation (Rumelhart, Hinton & Williams 1986) needs two methods of a layer y = f(x; w).
`forward` computes y and stores what `backward` needs. `backward` takes ∂L/∂y, the gradient of the
loss with respect to the outputs; by the chain rule

    ∂L/∂w = Σ ∂L/∂y · ∂y/∂w     is stored for the optimizer, and
    ∂L/∂x = Σ ∂L/∂y · ∂y/∂x     is returned to the previous layer.

This file does not use torch: `train_numpy.py` trains these layers, `gradcheck.py` checks every
backward against finite differences, and `numpy_nets.py` makes them usable in `train.py`.
In the code dy is ∂L/∂y, dx is ∂L/∂x, and so on.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.floating]


class Layer:
    """Base of all layers: the names of their arrays, and whether they are in training mode.

    An instance stores one forward pass: `backward` belongs to the most recent `forward`.
    """

    parameter_names: tuple[str, ...] = ()  # arrays with a gradient: weight, bias
    buffer_names: tuple[str, ...] = ()  # arrays of the state without a gradient

    def __init__(self) -> None:
        self.training = True
        self.gradients: dict[str, Array] = {}  # by parameter name, after backward

    def forward(self, x: Array) -> Array:
        raise NotImplementedError

    def backward(self, dy: Array) -> Array:
        raise NotImplementedError


class Flatten(Layer):
    """Flatten images (B, C, H, W) to (B, C·H·W)."""

    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy: Array) -> Array:
        return dy.reshape(self.shape)


class Linear(Layer):
    """y = x Wᵀ + b.

    Args:
        in_features: Number of inputs D.
        out_features: Number of outputs K.
        rng: Draws the weights, uniform in ±1/√D as in torch.
    """

    parameter_names = ("weight", "bias")

    def __init__(self, in_features: int, out_features: int, rng: np.random.Generator) -> None:
        super().__init__()
        bound = in_features**-0.5
        self.weight: Array = rng.uniform(-bound, bound, (out_features, in_features))  # (K, D)
        self.bias: Array = rng.uniform(-bound, bound, out_features)  # (K,)

    def forward(self, x: Array) -> Array:
        self.x = x  # (B, D)
        return x @ self.weight.T + self.bias  # (B, K)

    def backward(self, dy: Array) -> Array:
        # ∂L/∂W = Σ_rows dyᵀ x;  ∂L/∂b = Σ_rows dy;  ∂L/∂x = dy W
        self.gradients = {"weight": dy.T @ self.x, "bias": dy.sum(axis=0)}
        return dy @ self.weight  # (B, D)


class ReLU(Layer):
    """y = max(x, 0)."""

    def forward(self, x: Array) -> Array:
        self.positive = x > 0
        return np.maximum(x, 0)

    def backward(self, dy: Array) -> Array:
        # ∂y/∂x = 1 where x > 0, else 0
        return dy * self.positive


class Tanh(Layer):
    """y = tanh(x)."""

    def forward(self, x: Array) -> Array:
        self.y = np.tanh(x)
        return self.y

    def backward(self, dy: Array) -> Array:
        # ∂y/∂x = 1 - tanh²(x)
        return dy * (1 - self.y**2)


class BatchNorm(Layer):
    """y = γ · (x - μ) / √(σ² + ε) + β, with mean μ and variance σ² of the batch per feature.

    Ioffe & Szegedy 2015. Features are the second axis of (B, D) or (B, C, H, W); all positions of a
    channel share one μ and σ². Evaluation uses running averages of both, so that a row does not
    depend on its batch.

    Args:
        features: Number of features, D or C.
        momentum: Weight of a batch in the running averages, in (0, 1].
        eps: ε, above 0.
    """

    parameter_names = ("weight", "bias")  # γ and β
    buffer_names = ("running_mean", "running_var")

    def __init__(self, features: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight: Array = np.ones(features)
        self.bias: Array = np.zeros(features)
        self.running_mean: Array = np.zeros(features)
        self.running_var: Array = np.ones(features)

    def forward(self, x: Array) -> Array:
        self.axes = (0, *range(2, x.ndim))  # all but the feature axis
        self.column = (1, -1) + (1,) * (x.ndim - 2)  # (D,) as (1, D) or (1, D, 1, 1)
        if self.training:
            mean, var = x.mean(axis=self.axes), x.var(axis=self.axes)  # (D,)
            n = x.size // len(mean)
            # running ← (1 - m) · running + m · batch; with the unbiased variance, by n - 1
            for running, batch in (
                (self.running_mean, mean),
                (self.running_var, var * n / max(n - 1, 1)),
            ):
                running += self.momentum * (batch - running)
        else:
            mean, var = self.running_mean, self.running_var
        self.scale = 1 / np.sqrt(var + self.eps)  # (D,)
        self.x_hat = (x - self._broadcast(mean)) * self._broadcast(self.scale)
        return self._broadcast(self.weight) * self.x_hat + self._broadcast(self.bias)

    def backward(self, dy: Array) -> Array:
        # ∂L/∂γ = Σ dy · x̂;  ∂L/∂β = Σ dy
        self.gradients = {
            "weight": (dy * self.x_hat).sum(axis=self.axes),
            "bias": dy.sum(axis=self.axes),
        }
        dx_hat = dy * self._broadcast(self.weight)
        if self.training:
            # x affects its own x̂ and, through μ and σ², all others:
            # ∂L/∂x = (dx̂ - mean(dx̂) - x̂ · mean(dx̂ · x̂)) / √(σ² + ε)
            projection = (dx_hat * self.x_hat).mean(axis=self.axes)
            dx_hat = (
                dx_hat
                - self._broadcast(dx_hat.mean(axis=self.axes))
                - self.x_hat * self._broadcast(projection)
            )
        return dx_hat * self._broadcast(self.scale)

    def _broadcast(self, per_feature: Array) -> Array:
        return per_feature.reshape(self.column)


class Dropout(Layer):
    """y = x · mask / (1 - p): each element is dropped with probability p, in training only.

    Srivastava et al. 2014. Dividing by 1 - p keeps the expectation of y at x.

    Args:
        p: Dropout probability, in [0, 1).
        rng: Draws the masks.
    """

    def __init__(self, p: float, rng: np.random.Generator) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {p}.")
        self.p, self.rng = p, rng

    def forward(self, x: Array) -> Array:
        self.mask: Array = np.ones((), x.dtype)
        if self.training:
            kept = self.rng.random(x.shape, dtype=np.float32) >= self.p
            self.mask = kept.astype(x.dtype) / (1 - self.p)
        return x * self.mask

    def backward(self, dy: Array) -> Array:
        # ∂y/∂x = mask / (1 - p)
        return dy * self.mask


class Conv2d(Layer):
    """y[o, i, j] = b[o] + Σ_{c, u, v} W[o, c, u, v] · x[c, i + u, j + v], by one matrix product.

    im2col (Chellapilla et al. 2006): each patch of the image becomes a row of a matrix, so that the
    convolution is a linear layer on these rows. The backward pass, col2im, sums the gradients of
    all patches that contain a pixel.

    Args:
        in_channels: Channels C of the input.
        out_channels: Filters O, the channels of the output.
        size: Side k of a filter in pixels.
        padding: Zeros added on each side, in pixels.
        rng: Draws the weights, uniform in ±1/√(C·k²) as in torch.
    """

    parameter_names = ("weight", "bias")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        padding: int,
        rng: np.random.Generator,
    ) -> None:
        super().__init__()
        self.size, self.padding = size, padding
        bound = (in_channels * size**2) ** -0.5
        shape = (out_channels, in_channels, size, size)
        self.weight: Array = rng.uniform(-bound, bound, shape)  # (O, C, k, k)
        self.bias: Array = rng.uniform(-bound, bound, out_channels)  # (O,)

    def forward(self, x: Array) -> Array:
        k, p = self.size, self.padding
        x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
        self.padded_shape = x.shape
        patches = sliding_window_view(x, (k, k), axis=(2, 3))  # (B, C, H', W', k, k)
        batch, _, height, width = patches.shape[:4]
        # (B, H', W', C, k, k) -> (B·H'·W', C·k·k)
        self.rows = patches.transpose(0, 2, 3, 1, 4, 5).reshape(batch * height * width, -1)
        y = self.rows @ self.weight.reshape(len(self.weight), -1).T + self.bias  # (B·H'·W', O)
        return y.reshape(batch, height, width, -1).transpose(0, 3, 1, 2)  # (B, O, H', W')

    def backward(self, dy: Array) -> Array:
        k, p = self.size, self.padding
        batch, filters, height, width = dy.shape
        d_out = dy.transpose(0, 2, 3, 1).reshape(-1, filters)  # (B·H'·W', O)
        # As in Linear: ∂L/∂W = Σ_rows dyᵀ rows;  ∂L/∂b = Σ_rows dy;  ∂L/∂rows = dy W
        self.gradients = {
            "weight": (d_out.T @ self.rows).reshape(self.weight.shape),
            "bias": d_out.sum(axis=0),
        }
        d_rows = d_out @ self.weight.reshape(filters, -1)  # (B·H'·W', C·k·k)
        # (B·H'·W', C·k·k) -> (k, k, B, C, H', W')
        d_patches = d_rows.reshape(batch, height, width, -1, k, k).transpose(4, 5, 0, 3, 1, 2)
        dx: Array = np.zeros(self.padded_shape, dy.dtype)
        for u in range(k):
            for v in range(k):
                dx[:, :, u : u + height, v : v + width] += d_patches[u, v]
        return dx[:, :, p : dx.shape[2] - p, p : dx.shape[3] - p]  # (B, C, H, W)


class MaxPool2d(Layer):
    """The maximum of each size × size block; incomplete blocks at the border are dropped.

    Args:
        size: Side of a block in pixels.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        batch, channels, height, width = x.shape
        s, rows, columns = self.size, height // self.size, width // self.size
        blocks = x[:, :, : rows * s, : columns * s].reshape(batch, channels, rows, s, columns, s)
        blocks = blocks.transpose(0, 1, 2, 4, 3, 5).reshape(batch, channels, rows, columns, s * s)
        self.argmax = blocks.argmax(axis=-1)[..., None]  # the first of equal ones
        return np.take_along_axis(blocks, self.argmax, axis=-1)[..., 0]  # (B, C, H/s, W/s)

    def backward(self, dy: Array) -> Array:
        # ∂y/∂x = 1 for the maximum of a block, else 0
        batch, channels, rows, columns = dy.shape
        s = self.size
        blocks = np.zeros((batch, channels, rows, columns, s * s), dy.dtype)
        np.put_along_axis(blocks, self.argmax, dy[..., None], axis=-1)
        blocks = blocks.reshape(batch, channels, rows, columns, s, s).transpose(0, 1, 2, 4, 3, 5)
        dx: Array = np.zeros(self.shape, dy.dtype)
        dx[:, :, : rows * s, : columns * s] = blocks.reshape(batch, channels, rows * s, columns * s)
        return dx


class SoftmaxCrossEntropy:
    """The loss L = mean over rows of -ln softmax(z)[target], in nats."""

    def forward(self, logits: Array, targets: NDArray[np.integer]) -> float:
        """Return the loss of logits (B, K) for targets (B,)."""
        self.targets = targets
        # Subtracting the maximum does not change softmax; exp overflows above 88 in float32.
        z = logits - logits.max(axis=1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))  # (B, K)
        self.p = np.exp(log_p)
        return float(-log_p[np.arange(len(targets)), targets].mean())

    def backward(self) -> Array:
        # ∂L/∂z = (softmax(z) - onehot(target)) / B
        dz = self.p.copy()  # (B, K)
        dz[np.arange(len(self.targets)), self.targets] -= 1
        return dz / len(self.targets)
