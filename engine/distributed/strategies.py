"""Lightning's strategies, set right: ModelParallelStrategy with checkpoints that any other run can
read, DeepSpeedStrategy with gradients that are not divided twice."""

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DeepSpeedStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from typing_extensions import override

from engine.checkpoint.sharded import kind_of, read_sharded


class ModelParallel(ModelParallelStrategy):
    """Spread the net over the processes: FSDP2, tensor parallelism, or FSDP2 between groups of it.

    The task cuts its net in `configure_model` (engine/distributed/sharding.py). A checkpoint is one file, the
    same as that of one process: it resumes on any number of devices, by any strategy, and export.py
    and generate.py read it. Lightning's own numbers the states of the optimizer by another order
    of the weights where weight decay makes groups of them.

    Args:
        tensor_parallel_size: Processes that share each row of a batch; auto: all of a node. FSDP
            shares everything among as many groups of them as there are.
        save_distributed_checkpoint: Every process writes its share into a folder, for nets that do
            not fit the memory of one host; export.py makes one file of it.
        process_group_backend: nccl, gloo, …; by default that of the device.
    """

    def __init__(
        self,
        tensor_parallel_size: int | Literal["auto"] = 1,
        save_distributed_checkpoint: bool = False,
        process_group_backend: str | None = None,
    ) -> None:
        super().__init__(
            tensor_parallel_size=tensor_parallel_size,
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend=process_group_backend,
        )

    @override
    def setup_environment(self) -> None:
        world = self.num_nodes * self.num_processes
        size = self._tensor_parallel_size
        size = self.num_processes if size == "auto" else int(size)
        if size < 1 or self.num_processes % size:
            raise MisconfigurationException(
                f"--trainer.strategy.tensor_parallel_size {size} must divide the "
                f"{self.num_processes} devices of a node: what they say to each other is too much "
                "for a network."
            )
        self._tensor_parallel_size, self._data_parallel_size = size, world // size
        # It deplores two sums in a row, which cutting in two ways takes.
        logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
        super().setup_environment()

    @override
    def setup(self, trainer: Any) -> None:
        task = self.lightning_module
        if not is_overridden("configure_model", task):
            raise MisconfigurationException(
                f"{type(task).__name__} does not cut its net, as engine.distributed.ModelParallel asks: give it "
                "`def configure_model(self): shard(self)` (engine/distributed/sharding.py), or take --config "
                "configs/trainer/ddp.yaml."
            )
        for callback in trainer.callbacks:
            if isinstance(callback, WeightAveraging | StochasticWeightAveraging):
                raise MisconfigurationException(
                    f"{type(callback).__name__} averages whole nets, and engine.distributed.ModelParallel has "
                    "but shares of one: leave the average out, or take --config "
                    "configs/trainer/ddp.yaml."
                )
        super().setup(trainer)

    @override
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        if self._save_distributed_checkpoint:
            return super().optimizer_state(optimizer)
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer.optimizer

        def full(value: Any) -> Any:
            if not isinstance(value, DTensor):
                return value
            gathered = value.full_tensor()  # a collective: all ranks take part
            return gathered.cpu() if self.is_global_zero else None

        state = optimizer.state_dict()
        return state | {
            "state": {
                number: {name: full(value) for name, value in values.items()}
                for number, values in state["state"].items()
            }
        }

    @override
    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        path = Path(self.broadcast(str(checkpoint_path)))
        if path.is_dir():
            return super().load_checkpoint(path, weights_only)
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        task = self.lightning_module
        assert task is not None
        options = StateDictOptions(full_state_dict=True, strict=task.strict_loading)
        set_model_state_dict(task, content.pop("state_dict"), options=options)
        if task.trainer.state.fn == TrainerFn.FITTING:
            for optimizer, state in zip(self.optimizers, content["optimizer_states"], strict=True):
                optimizer.load_state_dict(_spread(state, optimizer))
        return content


class DeepSpeed(DeepSpeedStrategy):
    """DeepSpeed as Lightning runs it, for whole batches, and with accumulation for their mean.

    Lightning divides the loss by the number of accumulated batches, and so does DeepSpeed:
    gradients would be as many times too small, never clipped, and decay would outweigh them. And
    weights that ZeRO-3 has cut it reads into what trains only; to evaluate them they are made whole
    on the first process, and cut anew. Arguments are Lightning's.
    """

    @override
    def _auto_select_batch_size(self) -> int:
        return 1  # only told in its log; Lightning would ask a sampler that whole batches lack

    @override
    def backward(
        self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any
    ) -> Tensor:
        return super().backward(closure_loss, optimizer, *args, scale_wrt_gas=False, **kwargs)

    @override
    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        if not self._cuts_to_evaluate():
            return super().load_checkpoint(checkpoint_path, weights_only)
        content = read_sharded(Path(checkpoint_path)) if self.is_global_zero else {}
        state = content.pop("state_dict", {})
        rest: dict[str, Any] = self.broadcast(content)
        return {"state_dict": state, **rest}

    @override
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        if self._cuts_to_evaluate():
            self._restore_zero_state(checkpoint, strict=strict)

    def _cuts_to_evaluate(self) -> bool:
        task = self.lightning_module
        return self.zero_stage_3 and task is not None and task.trainer.state.fn != TrainerFn.FITTING


def check_devices(trainer: Any, checkpoint: str | Path | None) -> None:
    """Refuse what a strategy can't do, before anything is built.

    Args:
        trainer: The Trainer's part of the config.
        checkpoint: What is to be loaded, if anything is.

    Raises:
        MisconfigurationException: Saying what to do instead.
    """
    strategy, accelerator = trainer.strategy, str(trainer.accelerator)
    name = str(strategy if isinstance(strategy, str) else strategy.get("class_path", ""))
    deepspeed = "deepspeed" in name.lower()
    if deepspeed and importlib.util.find_spec("deepspeed") is None:
        raise MisconfigurationException(
            "DeepSpeed is not installed: pip install 'deepspeed>=0.17' (Linux), or take --config "
            "configs/trainer/fsdp.yaml, which cuts the same and needs nothing."
        )
    if deepspeed and (accelerator == "cpu" or not torch.cuda.is_available()):
        raise MisconfigurationException(
            "DeepSpeed trains on GPUs only, as Lightning runs it, and "
            f"{'the CPU was asked for' if accelerator == 'cpu' else 'there is none here'}: take "
            "--config configs/trainer/fsdp.yaml, which cuts the same and runs on CPUs, too."
        )
    if deepspeed and name.startswith(("deepspeed", "DeepSpeed", "lightning.")):
        raise MisconfigurationException(
            f"--trainer.strategy {name} is Lightning's own DeepSpeed, which can't begin with whole "
            "batches and divides accumulated gradients twice: take --config "
            "configs/trainer/deepspeed_zero2.yaml or deepspeed_zero3.yaml."
        )
    found = torch.cuda.is_available() or (
        accelerator in ("gpu", "mps") and torch.backends.mps.is_available()
    )
    if accelerator in ("gpu", "cuda", "mps") and not found:
        raise MisconfigurationException(
            f"--trainer.accelerator {accelerator}: PyTorch finds no GPU here; leave it out, or "
            "take --config configs/trainer/cpu.yaml."
        )
    if checkpoint is None or not Path(checkpoint).exists():
        return
    kind = kind_of(Path(checkpoint))
    if deepspeed != (kind == "deepspeed") or (kind == "torch" and "ModelParallel" not in name):
        needed = {
            "deepspeed": "configs/trainer/deepspeed_zero2.yaml or deepspeed_zero3.yaml",
            "torch": "configs/trainer/fsdp.yaml or tensor_parallel.yaml",
            "file": "no overlay of DeepSpeed",
        }[kind]
        what = "a single file" if kind == "file" else f"a folder that {kind} wrote"
        raise MisconfigurationException(
            f"{checkpoint} is {what}, which needs {needed}. python export.py --checkpoint "
            f"{checkpoint} --format checkpoint --output FOLDER makes one file of any."
        )


def _spread(state: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """The state of a whole optimizer, with the share of this process of each tensor."""
    ours = [p for group in optimizer.param_groups for p in group["params"]]
    theirs = [number for group in state["param_groups"] for number in group["params"]]
    spread: dict[int, Any] = {}
    for number, weight in zip(theirs, ours, strict=True):
        spread[number] = {
            name: distribute_tensor(
                value.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None
            )
            if isinstance(value, Tensor) and value.shape == weight.shape and value.ndim
            else value
            for name, value in state["state"].get(number, {}).items()
        }
    return {"state": {n: s for n, s in spread.items() if s}, "param_groups": state["param_groups"]}
