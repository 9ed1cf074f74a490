"""nn.LSTM that also works under autocast on CPUs without a low-precision LSTM kernel."""

import warnings
from functools import cache

import torch
from torch import Tensor, nn

LSTMState = tuple[Tensor, Tensor]


@cache
def has_lstm_kernel(dtype: torch.dtype) -> bool:
    """Return whether oneDNN has an LSTM for this dtype on this CPU.

    It has none for bfloat16 on CPUs without AVX-512, and none for training in float16 on most.
    PyTorch has no query for it, so this runs an LSTM of one unit.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", dtype):
            # Initialized on the meta device, it draws no random numbers.
            layer = nn.LSTM(1, 1, device="meta").to_empty(device="cpu")
            layer(torch.zeros(1, 1, 1))
    except RuntimeError:
        name = str(dtype).removeprefix("torch.")
        warnings.warn(f"This CPU has no {name} LSTM; LSTM layers run in float32.", stacklevel=2)
        return False
    return True


class LSTM(nn.LSTM):
    """nn.LSTM; under CPU autocast it runs in float32 where oneDNN lacks the autocast dtype."""

    @torch.compiler.disable  # dynamo does not trace nn.LSTM either
    def forward(self, input: Tensor, hx: LSTMState | None = None) -> tuple[Tensor, LSTMState]:
        if not (
            input.device.type == "cpu"
            and torch.is_autocast_enabled("cpu")
            and not has_lstm_kernel(torch.get_autocast_dtype("cpu"))
        ):
            return super().forward(input, hx)
        state = None if hx is None else (hx[0].float(), hx[1].float())
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float(), state)
