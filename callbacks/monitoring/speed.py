"""How fast a training is, and what share of the machine's power goes into the net."""

import time
from copy import deepcopy
from functools import cache
from typing import Any
from warnings import catch_warnings

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.throughput import get_available_flops
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC2701  # no public name
from torch.utils._pytree import tree_map_only  # noqa: PLC2701  # no public name
from torch.utils.flop_counter import FlopCounterMode

from engine.run.step_metrics import log_step, step_is_done, step_is_logged
from engine.run.throughput import samples_and_tokens

DTYPES = {"bf": torch.bfloat16, "16": torch.float16, "64": torch.float64}


class Speed(Callback):
    """Logs throughput every `trainer.log_every_n_steps`, over the steps since the last time.

    | name | what it is |
    | --- | --- |
    | `speed/samples_per_second` | rows of all processes |
    | `speed/tokens_per_second` | the same in tokens, where a row has a target for each |
    | `speed/tflops` | 10^12 floating-point operations a second that the net needs, of all devices |
    | `speed/mfu` | the same as a share of what the devices could do at most (MFU) |

    Validation does not count as time; checkpoints, pictures and waiting for data do, and so does
    not the first step of a process, which chooses kernels, compiles, and is used to count the net.

    FLOPs are those of the matrix products, convolutions and attention of a forward and a backward
    pass, counted on a copy of the net that computes nothing, with the shapes of the first batch.
    (Lightning's ThroughputMonitor wants them from the task, and waits for the device in each step.)
    What is recomputed or masked is not told apart: Chowdhery et al. 2022 (PaLM), appendix B. Nets
    whose FLOPs can't be counted, as those in NumPy, and tasks without a `net`, get no MFU.

    The most that a device could do is, on a GPU, what Lightning's table says of it for the
    precision of the run; on a CPU or a GPU that it does not know, the best matrix product measured
    at the start (a second).

    Args:
        peak_tflops: 10^12 operations a second that one device can do, in place of the above.
    """

    def __init__(self, peak_tflops: float | None = None) -> None:
        if peak_tflops is not None and not peak_tflops > 0:
            raise ValueError(
                f"Speed: peak_tflops must be above 0, not {peak_tflops}; leave it out to look it "
                "up or to measure it."
            )
        self.peak_tflops = peak_tflops
        self._shadow: nn.Module | None = None
        self._flops = 0.0  # a row needs, forward and backward
        self._peak = 0.0  # FLOP/s of all devices
        self._since: float | None = None  # when the steps that count began
        self._paused = 0.0
        self._rows = self._tokens = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        net = getattr(pl_module, "net", None)
        if stage == "fit" and isinstance(net, nn.Module):  # later it may be cut among devices
            self._shadow = shadow_of(net)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since, self._rows, self._tokens = None, 0, 0

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._since is None:
            if step_is_done(trainer):
                self._prepare(trainer, pl_module, batch)
                self._since = now(pl_module.device)
            return
        rows, tokens = samples_and_tokens(batch)
        self._rows += rows
        self._tokens += tokens
        if not step_is_logged(trainer) or not step_is_done(trainer):
            return
        ended = now(pl_module.device)
        metrics = self._metrics(trainer, pl_module, ended - self._since)
        self._since, self._rows, self._tokens = ended, 0, 0
        log_step(trainer, metrics)

    def _metrics(
        self, trainer: Trainer, pl_module: LightningModule, seconds: float
    ) -> dict[str, float]:
        counted = torch.tensor([self._rows, self._tokens], device=pl_module.device)
        every: Any = trainer.strategy.reduce(counted, reduce_op="sum")
        told = trainer.distributed_sampler_kwargs  # processes that share a row counted it, too
        shared = trainer.world_size // told["num_replicas"] if told else trainer.world_size
        rows, tokens = (every // shared).tolist()
        metrics = {"speed/samples_per_second": rows / seconds}
        if tokens:
            metrics["speed/tokens_per_second"] = tokens / seconds
        if self._flops:
            metrics["speed/tflops"] = self._flops * rows / seconds / 1e12
            metrics["speed/mfu"] = self._flops * rows / seconds / self._peak
        return metrics

    def _prepare(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> None:
        if self._shadow is None:
            return
        net = type(pl_module.net).__name__
        try:
            self._flops = flops(self._shadow, batch[0]) / samples_and_tokens(batch)[0]
            why = "it has no matrix product that PyTorch sees"
        except Exception as error:  # nets are anyone's code, and the run does not depend on this
            why = str(error).strip().partition("\n")[0] or type(error).__name__
        self._shadow = None
        if not self._flops:
            rank_zero_warn(f"Speed: no speed/mfu, since the FLOPs of {net} can't be counted: {why}")
            return
        device = pl_module.device
        dtype = DTYPES.get(str(trainer.precision)[:2], torch.float32)
        own = 1e12 * self.peak_tflops if self.peak_tflops else peak_flops(device, dtype)
        # In units that float32 holds, for devices that have no float64.
        teras: Any = trainer.strategy.reduce(
            torch.tensor(own / 1e12, device=device), reduce_op="sum"
        )
        self._peak = 1e12 * float(teras)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._paused = now(pl_module.device)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and self._since is not None:
            self._since += now(pl_module.device) - self._paused


def now(device: torch.device) -> float:
    """The time, once the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def shadow_of(net: nn.Module) -> nn.Module:
    """A copy of a net without numbers: it knows shapes only, takes no memory and no time."""
    own = [*net.parameters(), *net.buffers()]
    shadows: dict[int, Any] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        for tensor in own:
            new = _like(tensor)
            shadows[id(tensor)] = (
                nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
            )
        return deepcopy(net, shadows)


def flops(shadow: nn.Module, inputs: Any) -> float:
    """Floating-point operations of a forward and a backward pass, by a net that `shadow_of` made.

    Args:
        shadow: The net.
        inputs: What it takes; only shapes and kinds are looked at.
    """
    fake = next(shadow.parameters()).fake_mode  # type: ignore[attr-defined]
    counter = FlopCounterMode(display=False)
    with (
        catch_warnings(action="ignore"),  # the switch says something about Intel's GPUs
        torch.backends.mkldnn.flags(enabled=False),  # its kernel for an LSTM hides the products
        torch.random.fork_rng(devices=[]),
        fake,
    ):
        inputs = tree_map_only(Tensor, _like, inputs)
        with counter:
            output = shadow(inputs)
            output = output[0] if isinstance(output, tuple) else output
            output.sum().backward()
    return float(counter.get_total_flops())


def _like(tensor: Tensor) -> Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=dtype, device="cpu")


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a device at most: of a GPU by Lightning's table, else by `matmul_peak`."""
    return named_peak(device, dtype) or matmul_peak(dtype, str(device))


def named_peak(device: torch.device, dtype: torch.dtype) -> float | None:
    """FLOP/s that Lightning's table names for a GPU; None where it knows none."""
    if device.type != "cuda":
        return None
    with catch_warnings(action="ignore"):  # which it says, too
        known = get_available_flops(device, dtype)
    return float(known) if known else None


@cache
def matmul_peak(dtype: torch.dtype, device: str = "cpu") -> float:
    """FLOP/s of a device's best product among shapes that a GPT has."""
    best = 0.0
    on_gpu = torch.device(device).type == "cuda"
    shapes = ((3072, 384, 1152), (3072, 384, 1536), (2048, 2048, 2048), (8192, 8192, 8192))
    random = torch.Generator(device).manual_seed(0)  # that of the training stays as it is
    for m, k, n in shapes if on_gpu else shapes[:3]:
        a = torch.randn(m, k, device=device, generator=random).to(dtype)
        b = torch.randn(k, n, device=device, generator=random).to(dtype)
        for _ in range(10):
            started = now(a.device)
            a @ b
            best = max(best, 2 * m * k * n / (now(a.device) - started))
    return best
