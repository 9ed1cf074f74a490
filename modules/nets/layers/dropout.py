"""Dropout whose mask is cheap on a CPU: cut from random bytes, one byte an element.

Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
`nn.Dropout` draws a Bernoulli number for every element, one after the other; on a CPU that costs a
GPT more than half of its training step. One random 64-bit word holds eight bytes and so decides
eight elements: dropout becomes about six times as fast. The price is that p is rounded to a step of
1/256 (0.1 becomes 26/256 = 0.1016). The survivors are scaled with the rounded value, so that the
expectation of the output is the input exactly.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INT64_MIN = torch.iinfo(torch.int64).min


# An operator of its own, because torch.compile can look into neither `random_` nor a view of words
# as bytes. The tag says that two calls differ: the compiler must neither merge them nor draw a mask
# anew for the backward pass.
@torch.library.custom_op(
    "stepladder::dropout_mask", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,)
)
def dropout_mask(like: Tensor, threshold: int) -> Tensor:
    """As large as `like`: 0 with probability threshold / 256, else 256 / (256 - threshold)."""
    # Plain `random_()` stops at 2^63 - 1: every eighth byte would lack its top bit and be dropped
    # twice as often.
    words = torch.empty(like.numel() // 8 + 1, dtype=torch.int64).random_(INT64_MIN, None)
    mask = torch.empty_like(like)
    # In the mask's order in memory: with channels last another one takes half as long again.
    drawn = words.view(torch.uint8)[: like.numel()].as_strided(mask.shape, mask.stride())
    kept = drawn.ge_(threshold)  # 0 or 1 as bytes: from booleans it takes three times as long
    return mask.copy_(kept).mul_(256 / (256 - threshold))


@dropout_mask.register_fake
def _(like: Tensor, threshold: int) -> Tensor:
    return torch.empty_like(like)


class Dropout(nn.Module):
    """Zeroes each element with probability p; scales the others so that the expectation stays.

    Args:
        p: probability of dropping an element, 0 <= p < 1;
            on a CPU it is rounded to a multiple of 1/256 (never to 0 or 1).
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, not {p}")
        self.p = p
        self.threshold = min(max(round(256 * p), 1), 255)

    @property
    def active(self) -> bool:
        return self.training and self.p > 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        return x * dropout_mask(x.detach(), self.threshold)

    def extra_repr(self) -> str:
        return f"p={self.p}"
