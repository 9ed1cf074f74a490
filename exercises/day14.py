"""Day 14: LSTM and GRU, states of padded sequences, and the memory of a forget gate."""

import numpy as np


def lstm_step(
    x: np.ndarray,
    state: tuple[np.ndarray, np.ndarray],
    w_x: np.ndarray,
    w_h: np.ndarray,
    bias: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (h, c) after a step of an LSTM.

        i, f, g, o = split(x W_x + h W_h + b),  order and sizes as in PyTorch
        c ← σ(f) c + σ(i) tanh(g),  h ← σ(o) tanh(c)

    Args:
        x: Inputs, (B, I).
        state: h and c, (B, H) each.
        w_x: Weight of the input, (I, 4H).
        w_h: Weight of the state, (H, 4H).
        bias: Bias, (4H,).

    Source: Hochreiter & Schmidhuber 1997; Gers, Schmidhuber & Cummins 2000 (forget gate).
    """
    raise NotImplementedError


def gru_step(
    x: np.ndarray,
    h: np.ndarray,
    w_x: np.ndarray,
    w_h: np.ndarray,
    b_x: np.ndarray,
    b_h: np.ndarray,
) -> np.ndarray:
    """Return h after a step of a GRU, in PyTorch's form.

        r, z, n = gates of x W_x + b_x and h W_h + b_h, in this order
        r = σ(r_x + r_h),  z = σ(z_x + z_h),  n = tanh(n_x + r · n_h)
        h ← (1 - z) n + z h

    Note where the reset gate acts: on the product h W_h + b_h, and not on h before it.

    Args:
        x: Inputs, (B, I).
        h: State, (B, H).
        w_x: Weight of the input, (I, 3H).
        w_h: Weight of the state, (H, 3H).
        b_x: Bias of the input, (3H,).
        b_h: Bias of the state, (3H,).

    Source: Cho et al. 2014 (arXiv:1406.1078); torch.nn.GRU.
    """
    raise NotImplementedError


def last_states(outputs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the state after the last word of each padded sequence.

    Args:
        outputs: States at all positions, (B, T, H).
        lengths: Number of words of each sequence, from 1 to T, (B,).

    Returns:
        Array of shape (B, H).
    """
    raise NotImplementedError


def memory_half_life(forget_bias: float) -> float:
    """Return after how many steps half of a cell's content is left.

    Consider c_t = σ(b) c_t-1: a closed input gate and a forget gate that depends on its bias only.
    Show that a bias of 0 keeps little for ten steps, which is why it is often initialized to 1 or
    2.

    Args:
        forget_bias: The bias b.

    Source: Jozefowicz, Zaremba & Sutskever 2015, section 2.2.
    """
    raise NotImplementedError
