"""Checkpoints of adapters: without the frozen weights, which come from a base that they name.

A task with an `adapter` trains few of its parameters. If the frozen ones come from a known base
(the `pretrained` weights of the network, or the checkpoint of `--init_from`), its checkpoints hold
all other tensors and `base`: the source of the frozen weights and their SHA-256.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor

STATES = ("state_dict", "current_model_state")  # the latter under weight averaging


def base_name(name: str) -> str:
    """Return the name of a weight without the adapter: peft wraps layers as `base_layer`."""
    return name.replace(".base_layer.", ".")


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values of weights, in any order."""
    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        weight = weight.detach().cpu().contiguous()
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def frozen_weights(task: L.LightningModule) -> dict[str, Tensor]:
    """Return the parameters that are not trained, by the name they have without the adapter."""
    return {
        base_name(name): parameter
        for name, parameter in task.named_parameters()
        if not parameter.requires_grad
    }


def frozen_parameters(task: L.LightningModule) -> dict[str, Tensor]:
    """Return the parameters that are not trained, tied ones by each of their names."""
    named = task.named_parameters(remove_duplicate=False)
    return {name: parameter for name, parameter in named if not parameter.requires_grad}


def drop_frozen_weights(task: L.LightningModule, checkpoint: dict[str, Any]) -> None:
    """Remove what the task's base holds from a checkpoint that is about to be written."""
    base = getattr(task, "base", None)
    if base is None:
        return
    checkpoint["base"] = base
    frozen = frozen_parameters(task)
    for key in set(STATES) & set(checkpoint):
        state = checkpoint[key]
        checkpoint[key] = {name: state[name] for name in state if name not in frozen}


def load_base_weights(
    task: L.LightningModule, weights: Mapping[str, Tensor], source: str, names: Iterable[str]
) -> None:
    """Load the weights of a base into a task with an adapter, and record the base.

    Args:
        task: The task.
        weights: The base, by names without adapter.
        source: Path of the checkpoint that holds it.
        names: Names in `weights` to load; all other parameters of the task are trained.
    """
    names = set(names)
    ours = {base_name(name): name for name in task.state_dict()}
    task.load_state_dict({ours[name]: weights[name] for name in names}, strict=False)
    for name, parameter in task.named_parameters():
        if base_name(name) not in names:
            parameter.requires_grad_(True)
    frozen = {name: weights[name] for name in frozen_weights(task)}
    task.base = {"checkpoint": source, "sha256": fingerprint(frozen)}  # type: ignore[assignment]
