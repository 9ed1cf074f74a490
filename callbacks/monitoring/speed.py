"""Log throughput and model FLOPs utilization (MFU)."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from engine.run.flops import count_flops, fake_copy, peak_flops, synchronized_time
from engine.run.step_metrics import log_step, step_is_done, step_is_logged
from engine.run.throughput import samples_and_tokens

DTYPES = {"bf": torch.bfloat16, "16": torch.float16, "64": torch.float64}


class Speed(Callback):
    """Log throughput every `trainer.log_every_n_steps`, over the steps since the last time.

    | name | meaning |
    | --- | --- |
    | `speed/samples_per_second` | samples of all processes |
    | `speed/tokens_per_second` | tokens of all processes, if a sample has one target per token |
    | `speed/tflops` | 10^12 FLOP/s that the network needs, of all devices |
    | `speed/mfu` | the same as a fraction of the peak of the devices |

    The time includes checkpoints, figures and waiting for data, but not validation, and not the
    first step, which selects kernels and compiles.

    FLOPs are those of the matrix products, convolutions and attention of a forward and a backward
    pass, counted on a copy of the network with fake tensors and the shapes of the first batch.
    Recomputed and masked operations count as in Chowdhery et al. 2022 (PaLM), appendix B. There is
    no MFU for a network whose FLOPs cannot be counted, or a task without `net`. Lightning's
    ThroughputMonitor needs the FLOPs from the task and synchronizes the device in every step.

    Args:
        peak_tflops: Peak of one device in 10^12 FLOP/s. By default that of Lightning's table for
            the GPU and precision; on other devices the fastest matrix product, measured at the
            start in about a second.
    """

    def __init__(self, peak_tflops: float | None = None) -> None:
        if peak_tflops is not None and not peak_tflops > 0:
            raise ValueError(f"Speed: peak_tflops must be above 0, got {peak_tflops}.")
        self.peak_tflops = peak_tflops
        self._fake_net: nn.Module | None = None
        self._flops_per_sample = 0.0
        self._peak_flops = 0.0  # of all devices
        self._start: float | None = None  # of the steps that are counted now
        self._paused_at = 0.0
        self._samples = self._tokens = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        net = getattr(pl_module, "net", None)
        if stage == "fit" and isinstance(net, nn.Module):  # before a strategy shards it
            self._fake_net = fake_copy(net)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start, self._samples, self._tokens = None, 0, 0

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._start is None:
            if step_is_done(trainer):
                self._prepare_mfu(trainer, pl_module, batch)
                self._start = synchronized_time(pl_module.device)
            return
        samples, tokens = samples_and_tokens(batch)
        self._samples += samples
        self._tokens += tokens
        if not step_is_logged(trainer) or not step_is_done(trainer):
            return
        end = synchronized_time(pl_module.device)
        metrics = self._metrics(trainer, pl_module, end - self._start)
        self._start, self._samples, self._tokens = end, 0, 0
        log_step(trainer, metrics)

    def _metrics(
        self, trainer: Trainer, pl_module: LightningModule, seconds: float
    ) -> dict[str, float]:
        counts = torch.tensor([self._samples, self._tokens], device=pl_module.device)
        total: Any = trainer.strategy.reduce(counts, reduce_op="sum")
        sampler = trainer.distributed_sampler_kwargs
        # Tensor-parallel processes count the same samples.
        copies = trainer.world_size // (sampler["num_replicas"] if sampler else 1)
        samples, tokens = (total // copies).tolist()
        metrics = {"speed/samples_per_second": samples / seconds}
        if tokens:
            metrics["speed/tokens_per_second"] = tokens / seconds
        if self._flops_per_sample:
            flops = self._flops_per_sample * samples / seconds
            metrics |= {"speed/tflops": flops / 1e12, "speed/mfu": flops / self._peak_flops}
        return metrics

    def _prepare_mfu(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> None:
        if self._fake_net is None:
            return
        name = type(pl_module.net).__name__
        try:
            self._flops_per_sample = (
                count_flops(self._fake_net, batch[0]) / samples_and_tokens(batch)[0]
            )
            reason = "it has no matrix product in PyTorch"
        except Exception as error:  # any network may fail on fake tensors; training does not
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
        self._fake_net = None
        if not self._flops_per_sample:
            rank_zero_warn(f"Speed: no speed/mfu, cannot count the FLOPs of {name}: {reason}")
            return
        device = pl_module.device
        dtype = DTYPES.get(str(trainer.precision)[:2], torch.float32)
        tflops = self.peak_tflops or peak_flops(device, dtype) / 1e12  # fits float32
        total: Any = trainer.strategy.reduce(torch.tensor(tflops, device=device), reduce_op="sum")
        self._peak_flops = 1e12 * float(total)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._paused_at = synchronized_time(pl_module.device)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and self._start is not None:
            self._start += synchronized_time(pl_module.device) - self._paused_at
