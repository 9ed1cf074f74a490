"""The layers of a network in NumPy: what each computes, and the gradient it hands down, by hand.

Back-propagation (Rumelhart, Hinton & Williams 1986) needs two things of a layer y = f(x; w).
`forward` computes y and keeps what the way back will need. `backward` is given ∂L/∂y, how much the
loss grows with each output, and by the chain rule

    ∂L/∂w = Σ ∂L/∂y · ∂y/∂w     is kept for the optimizer, and
    ∂L/∂x = Σ ∂L/∂y · ∂y/∂x     is returned to the layer below.

Here no torch is imported: `train_numpy.py` trains these layers alone, `gradcheck.py` holds every
backward against finite differences, and `numpy_nets.py` puts them under `train.py`.
In the code dy is ∂L/∂y, dx is ∂L/∂x, and so on.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.floating]


class Layer:
    """What all layers share: the names of their arrays, and the mode they are in.

    An instance remembers one forward pass: its backward belongs to the forward before it.
    """

    learns: tuple[str, ...] = ()  # arrays with a gradient: weight, bias
    remembers: tuple[str, ...] = ()  # arrays that are part of the state but have no gradient

    def __init__(self) -> None:
        self.training = True
        self.gradients: dict[str, Array] = {}  # of `learns`, after backward

    def forward(self, x: Array) -> Array:
        raise NotImplementedError

    def backward(self, dy: Array) -> Array:
        raise NotImplementedError


class Flatten(Layer):
    """Pictures (B, C, H, W) as rows (B, C·H·W)."""

    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy: Array) -> Array:
        return dy.reshape(self.shape)


class Linear(Layer):
    """y = x Wᵀ + b.

    Args:
        fan_in: Inputs D of a row.
        fan_out: Outputs K of a row.
        rng: Draws the weights, uniform in ±1/√D as torch does.
    """

    learns = ("weight", "bias")

    def __init__(self, fan_in: int, fan_out: int, rng: np.random.Generator) -> None:
        super().__init__()
        bound = fan_in**-0.5
        self.weight: Array = rng.uniform(-bound, bound, (fan_out, fan_in))  # (K, D)
        self.bias: Array = rng.uniform(-bound, bound, fan_out)  # (K,)

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
    """y = γ · (x - μ) / √(σ² + ε) + β, with the batch's own mean μ and variance σ² per feature.

    Ioffe & Szegedy 2015. Features are the second axis: of rows (B, D), or of pictures (B, C, H, W),
    where all places of a channel share one μ and σ². In evaluation the running averages stand in
    for both, so that a row does not depend on the batch that it comes in.

    Args:
        features: Number of features, D or C.
        momentum: Share of a batch in the running averages, in (0, 1].
        eps: ε, above 0.
    """

    learns = ("weight", "bias")  # γ and β
    remembers = ("running_mean", "running_var")

    def __init__(self, features: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight: Array = np.ones(features)
        self.bias: Array = np.zeros(features)
        self.running_mean: Array = np.zeros(features)
        self.running_var: Array = np.ones(features)

    def forward(self, x: Array) -> Array:
        self.axes = (0, *range(2, x.ndim))  # all but the features'
        self.column = (1, -1) + (1,) * (x.ndim - 2)  # (D,) as (1, D) or (1, D, 1, 1)
        if self.training:
            mean, var = x.mean(axis=self.axes), x.var(axis=self.axes)  # (D,)
            n = x.size // len(mean)
            # running ← (1 - m) · running + m · batch; the variance by n - 1, as of a sample
            for running, batch in (
                (self.running_mean, mean),
                (self.running_var, var * n / max(n - 1, 1)),
            ):
                running += self.momentum * (batch - running)
        else:
            mean, var = self.running_mean, self.running_var
        self.scale = 1 / np.sqrt(var + self.eps)  # (D,)
        self.normal = (x - self._wide(mean)) * self._wide(self.scale)
        return self._wide(self.weight) * self.normal + self._wide(self.bias)

    def backward(self, dy: Array) -> Array:
        # ∂L/∂γ = Σ dy · x̂;  ∂L/∂β = Σ dy
        self.gradients = {
            "weight": (dy * self.normal).sum(axis=self.axes),
            "bias": dy.sum(axis=self.axes),
        }
        dnormal = dy * self._wide(self.weight)
        if self.training:
            # x moves its own x̂, and through μ and σ² everybody's:
            # ∂L/∂x = (dx̂ - mean(dx̂) - x̂ · mean(dx̂ · x̂)) / √(σ² + ε)
            along = (dnormal * self.normal).mean(axis=self.axes)
            dnormal = (
                dnormal - self._wide(dnormal.mean(axis=self.axes)) - self.normal * self._wide(along)
            )
        return dnormal * self._wide(self.scale)

    def _wide(self, per_feature: Array) -> Array:
        return per_feature.reshape(self.column)


class Dropout(Layer):
    """y = x · mask / (1 - p): each element is dropped with probability p, in training only.

    Srivastava et al. 2014. Dividing by what remains keeps the expectation of y at x.

    Args:
        p: Probability of dropping an element, in [0, 1).
        rng: Draws the masks.
    """

    def __init__(self, p: float, rng: np.random.Generator) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, not {p}.")
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

    im2col (Chellapilla et al. 2006): each patch of the picture becomes a row of a matrix, and then
    a convolution is a linear layer on these rows. The way back, col2im, adds up what all the
    patches that shared a pixel have to say about it.

    Args:
        in_channels: Channels C of the input.
        out_channels: Filters O, the channels of the output.
        size: Side k of a filter in pixels.
        padding: Zeros around the picture, in pixels.
        rng: Draws the weights, uniform in ±1/√(C·k²) as torch does.
    """

    learns = ("weight", "bias")

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
    """The largest of each size × size block; rows and columns that fill no block are left out.

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
        self.winner = blocks.argmax(axis=-1)[..., None]  # of equal ones the first
        return np.take_along_axis(blocks, self.winner, axis=-1)[..., 0]  # (B, C, H/s, W/s)

    def backward(self, dy: Array) -> Array:
        # ∂y/∂x = 1 for the winner of a block, else 0
        batch, channels, rows, columns = dy.shape
        s = self.size
        blocks = np.zeros((batch, channels, rows, columns, s * s), dy.dtype)
        np.put_along_axis(blocks, self.winner, dy[..., None], axis=-1)
        blocks = blocks.reshape(batch, channels, rows, columns, s, s).transpose(0, 1, 2, 4, 3, 5)
        dx: Array = np.zeros(self.shape, dy.dtype)
        dx[:, :, : rows * s, : columns * s] = blocks.reshape(batch, channels, rows * s, columns * s)
        return dx


class SoftmaxCrossEntropy:
    """L = mean over rows of -ln softmax(z)[target]: the loss, where the way back begins."""

    def forward(self, logits: Array, targets: NDArray[np.integer]) -> float:
        """Logits (B, K) and targets (B,) to nats."""
        self.targets = targets
        # Softmax does not change with a constant; without it exp() overflows beyond 88 in float32.
        z = logits - logits.max(axis=1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))  # (B, K)
        self.p = np.exp(log_p)
        return float(-log_p[np.arange(len(targets)), targets].mean())

    def backward(self) -> Array:
        # ∂L/∂z = (softmax(z) - onehot(target)) / B
        dz = self.p.copy()  # (B, K)
        dz[np.arange(len(self.targets)), self.targets] -= 1
        return dz / len(self.targets)
