"""Lightning's strategies for sharded models, with portable checkpoints and right accumulation."""

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
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from typing_extensions import override

from engine.checkpoint.sharded import checkpoint_format, read_sharded
from engine.errors import UserError


class ModelParallel(ModelParallelStrategy):
    """Train with FSDP2, tensor parallelism, or both (FSDP2 between tensor-parallel groups).

    The task shards its network in `configure_model`, see engine/distributed/sharding.py. A
    checkpoint is a single file, the same as that of one process: it resumes on any number of
    devices with any strategy, and export.py and generate.py read it. Lightning's own strategy
    numbers optimizer states in another order where weight decay splits parameters into groups.

    Args:
        tensor_parallel_size: Processes of a tensor-parallel group; auto: all of a node. The
            groups shard weights, gradients and optimizer states among each other (FSDP2).
        save_distributed_checkpoint: Let every process write its shard into a folder, for networks
            that do not fit the memory of one host; export.py converts it into a single file.
        process_group_backend: nccl, gloo, …; the device's default if not set.
        meta_device: Build the network without its matrices, and read or initialize one at a time
            when it is sharded, so that no process holds the full network. The weights are those of
            one process. train.py does so for new runs without an adapter.
        cpu_offload: Keep shards of weights, gradients and optimizer states in CPU memory, and run
            the optimizer there; a GPU holds the gathered weights of the current blocks and the
            activations. Each step copies weights and gradients between the two memories.

    Raises:
        UserError: If cpu_offload is combined with tensor parallelism.
    """

    def __init__(
        self,
        tensor_parallel_size: int | Literal["auto"] = 1,
        save_distributed_checkpoint: bool = False,
        process_group_backend: str | None = None,
        meta_device: bool = False,
        cpu_offload: bool = False,
    ) -> None:
        if cpu_offload and tensor_parallel_size != 1:
            raise UserError(
                "--trainer.strategy.cpu_offload needs --trainer.strategy.tensor_parallel_size 1, "
                f"got {tensor_parallel_size}."
            )
        if cpu_offload and process_group_backend is None and torch.cuda.is_available():
            process_group_backend = "cpu:gloo,cuda:nccl"  # the norm of gradients is summed on CPUs
        self.meta_device = meta_device
        self.cpu_offload = cpu_offload
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
            raise UserError(
                f"--trainer.strategy.tensor_parallel_size {size} must divide the "
                f"{self.num_processes} devices of a node: tensor parallelism does not cross nodes."
            )
        self._tensor_parallel_size, self._data_parallel_size = size, world // size
        # Silence DTensor's warning about consecutive all-reduces, which a 2-D mesh needs.
        logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
        super().setup_environment()

    @override
    def model_to_device(self) -> None:
        if not self.cpu_offload:
            super().model_to_device()
            return
        task: Any = self.lightning_module  # FSDP2 moved the buffers of the network
        net, task.net = task.net, nn.Identity()
        task.to(self.root_device)
        task.net = net

    @override
    def setup(self, trainer: Any) -> None:
        task = self.lightning_module
        if not is_overridden("configure_model", task):
            raise UserError(
                f"{type(task).__name__} does not shard its network, which "
                "engine.distributed.ModelParallel requires: add `def configure_model(self): "
                "shard(self)` (engine/distributed/sharding.py), or use --config "
                "configs/trainer/ddp.yaml."
            )
        if getattr(task, "adapter", None) is not None and self._save_distributed_checkpoint:
            raise UserError(
                "the checkpoint of an adapter is one small file: leave out "
                "--trainer.strategy.save_distributed_checkpoint."
            )
        for callback in trainer.callbacks:
            if isinstance(callback, WeightAveraging | StochasticWeightAveraging):
                raise UserError(
                    f"{type(callback).__name__} averages unsharded networks only, and "
                    "engine.distributed.ModelParallel shards them: remove the callback, or use "
                    "--config configs/trainer/ddp.yaml."
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
        adapted = getattr(task, "base", None) is not None  # then the frozen weights are there
        options = StateDictOptions(full_state_dict=True, strict=task.strict_loading and not adapted)
        set_model_state_dict(task, content.pop("state_dict"), options=options)
        if task.trainer.state.fn == TrainerFn.FITTING:
            for optimizer, state in zip(self.optimizers, content["optimizer_states"], strict=True):
                optimizer.load_state_dict(_distribute(state, optimizer))
        return content


class DeepSpeed(DeepSpeedStrategy):
    """Lightning's DeepSpeedStrategy with the mean over accumulated batches.

    Lightning and DeepSpeed each divide the loss by the number of accumulated batches; gradients
    would be that many times too small. Lightning also loads ZeRO-3 checkpoints for fit only; for
    evaluation they are consolidated on rank zero and partitioned again. The arguments are those of
    the parent.
    """

    @override
    def _auto_select_batch_size(self) -> int:
        return 1  # for DeepSpeed's log only; Lightning would read it from a batch sampler

    @override
    def backward(
        self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any
    ) -> Tensor:
        return super().backward(closure_loss, optimizer, *args, scale_wrt_gas=False, **kwargs)

    @override
    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        if not self._is_partitioned_for_evaluation():
            return super().load_checkpoint(checkpoint_path, weights_only)
        content = read_sharded(Path(checkpoint_path)) if self.is_global_zero else {}
        state = content.pop("state_dict", {})
        rest: dict[str, Any] = self.broadcast(content)
        return {"state_dict": state, **rest}

    @override
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        if self._is_partitioned_for_evaluation():
            self._restore_zero_state(checkpoint, strict=strict)

    def _is_partitioned_for_evaluation(self) -> bool:
        task = self.lightning_module
        return self.zero_stage_3 and task is not None and task.trainer.state.fn != TrainerFn.FITTING


def check_devices(trainer: Any, checkpoint: str | Path | None) -> None:
    """Refuse unavailable devices and unsupported strategies before anything is instantiated.

    Args:
        trainer: The `trainer` section of the config.
        checkpoint: The checkpoint that will be loaded, if any.

    Raises:
        UserError: Saying what to do instead.
    """
    strategy, accelerator = trainer.strategy, str(trainer.accelerator)
    name = str(strategy if isinstance(strategy, str) else strategy.get("class_path", ""))
    deepspeed = "deepspeed" in name.lower()
    if deepspeed and importlib.util.find_spec("deepspeed") is None:
        raise UserError(
            "DeepSpeed is not installed: pip install 'deepspeed>=0.17' (Linux), or use --config "
            "configs/trainer/fsdp.yaml, which shards the same and needs no extra package."
        )
    if deepspeed and (accelerator == "cpu" or not torch.cuda.is_available()):
        raise UserError(
            "DeepSpeed needs GPUs, and "
            f"{'trainer.accelerator is cpu' if accelerator == 'cpu' else 'no GPU was found'}: use "
            "--config configs/trainer/fsdp.yaml, which shards the same and also runs on CPUs."
        )
    if deepspeed and name.startswith(("deepspeed", "DeepSpeed", "lightning.")):
        raise UserError(
            f"--trainer.strategy {name} is Lightning's DeepSpeedStrategy, which needs a batch "
            "sampler and divides accumulated gradients twice: use --config "
            "configs/trainer/deepspeed_zero2.yaml or deepspeed_zero3.yaml."
        )
    found = torch.cuda.is_available() or (
        accelerator in ("gpu", "mps") and torch.backends.mps.is_available()
    )
    if accelerator in ("gpu", "cuda", "mps") and not found:
        raise UserError(
            f"--trainer.accelerator {accelerator}: PyTorch finds no GPU; remove it, or use "
            "--config configs/trainer/cpu.yaml."
        )
    if checkpoint is None or not Path(checkpoint).exists():
        return
    kind = checkpoint_format(Path(checkpoint))
    if deepspeed != (kind == "deepspeed") or (kind == "torch" and "ModelParallel" not in name):
        needed = {
            "deepspeed": "configs/trainer/deepspeed_zero2.yaml or deepspeed_zero3.yaml",
            "torch": "configs/trainer/fsdp.yaml or tensor_parallel.yaml",
            "file": "a strategy other than DeepSpeed",
        }[kind]
        what = "a single file" if kind == "file" else f"a sharded checkpoint of {kind}"
        raise UserError(
            f"{checkpoint} is {what}, which needs {needed}. To convert a checkpoint into a single "
            f"file: python export.py --checkpoint {checkpoint} --format checkpoint --output FOLDER."
        )


def _distribute(state: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Shard the tensors of a full optimizer state as the optimizer's parameters are."""
    ours = [p for group in optimizer.param_groups for p in group["params"]]
    theirs = [number for group in state["param_groups"] for number in group["params"]]
    sharded: dict[int, Any] = {}
    for number, weight in zip(theirs, ours, strict=True):
        sharded[number] = {
            name: distribute_tensor(
                value.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None
            )
            if isinstance(value, Tensor) and value.shape == weight.shape and value.ndim
            else value
            for name, value in state["state"].get(number, {}).items()
        }
    return {"state": {n: s for n, s in sharded.items() if s}, "param_groups": state["param_groups"]}
