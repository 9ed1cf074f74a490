"""Base class of tasks whose network may have an adapter."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from engine.checkpoint.base_weights import (
    base_name,
    drop_frozen_weights,
    fingerprint,
    frozen_weights,
)
from engine.checkpoint.reading import restore_base
from modules.adapters.methods import Adapter


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


class AdapterTask(L.LightningModule):
    """A task that trains its network, or only an adapter of it.

    Where an adapter's base is known, checkpoints hold the adapter only, see
    engine/checkpoint/base_weights.py.
    """

    net: nn.Module
    adapter: Adapter | None = None
    base: dict[str, str] | None = None  # source and SHA-256 of the frozen weights
    adapter_names: frozenset[str] = frozenset()  # of the tensors that the adapter adds

    def set_net(self, net: nn.Module, adapter: Adapter | None = None) -> None:
        """Set the network, with the adapter if there is one.

        Raises:
            ValueError: If the adapter does not fit the network.
        """
        self.net = net
        self.adapter = adapter
        if adapter is None:
            return
        names = {*self.state_dict()}
        adapter.apply(net)
        self.adapter_names = frozenset({base_name(n) for n in self.state_dict()} - names)
        pretrained = getattr(net, "pretrained", None)
        if pretrained:
            digest = fingerprint(frozen_weights(self))
            self.base = {"pretrained": str(pretrained), "sha256": digest}
            self._keep_source(net)

    def _keep_source(self, net: nn.Module) -> None:
        """Keep the arguments in the hyper-parameters from which the network loads its weights."""
        description = self.hparams.get("net")
        if isinstance(description, dict):
            names = getattr(net, "not_in_checkpoints", ())
            arguments = {name: _plain(getattr(net, name)) for name in names}
            description["init_args"] = {**description.get("init_args", {}), **arguments}

    def on_fit_start(self) -> None:
        if self.adapter is not None and self.base is None:
            rank_zero_warn(
                "the source of the network's weights is unknown (neither --init_from nor "
                "model.net.pretrained), so checkpoints hold the whole network. If its weights are "
                "random, an adapter learns little."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        drop_frozen_weights(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        restore_base(self, checkpoint)
