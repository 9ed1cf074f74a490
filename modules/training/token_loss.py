"""Cross-entropy summed over the tokens of a batch."""

from torch import Tensor, nn
from torch.nn import functional as F

from preprocessing.special_tokens import IGNORE_INDEX


class TokenLoss(nn.Module):
    """Cross-entropy in float32, summed over the targets that are not IGNORE_INDEX.

    A module, so that it can be compiled: then the logits are cast within the sum. In eager mode a
    float32 copy of the logits and their softmax are stored, which for GPT-2's 50,257 tokens takes a
    considerable part of a step.
    """

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss in nats, a scalar, for logits (B, T, V) and targets (B, T)."""
        return F.cross_entropy(
            logits.flatten(0, 1).float(),
            targets.flatten(),
            ignore_index=IGNORE_INDEX,
            reduction="sum",
        )
