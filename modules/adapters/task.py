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
from engine.checkpoint.reading import read_checkpoint, restore_base
from engine.errors import UserError
from modules.adapters.layers import remove_adapter
from modules.adapters.methods import IA3, Adapter, DoRA, HeadOnly, LoRA, PrefixTuning, QLoRA


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _build_adapter(description: Any) -> Adapter | None:
    """Return the adapter of a checkpoint's hyper-parameters."""
    if isinstance(description, str):
        description = {"class_path": description}
    name = (description or {}).get("class_path", "").rpartition(".")[2]
    kinds = (LoRA, DoRA, QLoRA, IA3, PrefixTuning, HeadOnly)
    kind = {cls.__name__: cls for cls in kinds}.get(name)
    return None if kind is None else kind(**description.get("init_args", {}))


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
        self._adapters: dict[str, tuple[Adapter, dict[str, Any]]] = {}  # for `use_adapter`
        if adapter is None:
            return
        weights = dict(self.named_parameters())  # before an adapter quantizes them
        self._inject(adapter)
        pretrained = getattr(net, "pretrained", None)
        if pretrained:
            digest = fingerprint({name: weights[name] for name in frozen_weights(self)})
            self.base = {"pretrained": str(pretrained), "sha256": digest}
            self._keep_source(net)

    def _inject(self, adapter: Adapter) -> None:
        names = {*self.state_dict()}
        adapter.apply(self.net)
        self.adapter = adapter
        self.adapter_names = frozenset({base_name(n) for n in self.state_dict()} - names)

    def _keep_source(self, net: nn.Module) -> None:
        """Keep the arguments in the hyper-parameters from which the network loads its weights."""
        description = self.hparams.get("net")
        if isinstance(description, dict):
            names = [name for name in ("pretrained", "data_dir") if hasattr(net, name)]
            arguments = {name: _plain(getattr(net, name)) for name in names}
            description["init_args"] = {**description.get("init_args", {}), **arguments}

    def load_adapter(self, name: str, checkpoint: str | Path) -> None:
        """Load the adapter of another checkpoint with the same base, for `use_adapter`.

        Args:
            name: Name for the adapter.
            checkpoint: The checkpoint of a task of the same class, trained with an adapter.

        Raises:
            UserError: If it holds no adapter, or one of other weights than this task has.
        """
        saved = read_checkpoint(checkpoint)
        adapter = _build_adapter(saved.get("hyper_parameters", {}).get("adapter"))
        if adapter is None or "base" not in saved:
            raise UserError(f"{checkpoint} does not hold an adapter and its base.")
        state = saved["state_dict"]
        trained = {base_name(key) for key in state} | self.adapter_names
        weights = {base_name(key): weight for key, weight in self.named_parameters()}
        frozen = {key: weights[key] for key in weights.keys() - trained}
        if fingerprint(frozen) != saved["base"]["sha256"]:
            base = saved["base"].get("checkpoint") or saved["base"].get("pretrained")
            raise UserError(
                f"{checkpoint} holds an adapter of other weights than those of this "
                f"{type(self).__name__}: open its base, {base}, in float32."
            )
        self._adapters[name] = adapter, state

    def use_adapter(self, name: str | None) -> None:
        """Replace the network's adapter in place by a loaded one; None: use the base alone.

        The head belongs to the adapter: without one, the head is that of the adapter before.

        Raises:
            UserError: If no adapter of this name was loaded.
        """
        if name is not None and name not in self._adapters:
            known = ", ".join(self._adapters) or "none"
            raise UserError(f"there is no adapter {name!r}; loaded with load_adapter: {known}.")
        remove_adapter(self.net, merge=False)
        self.adapter, self.adapter_names = None, frozenset()
        if name is None:
            return
        adapter, state = self._adapters[name]
        self._inject(adapter)
        self.load_state_dict(state, strict=False)
        self.train(self.training)

    def on_fit_start(self) -> None:
        if self.adapter is None or self.base is not None:
            return
        if self.adapter.needs_pretrained:
            raise UserError(
                f"{type(self.adapter).__name__} quantizes the weights that the network loads "
                "itself: set model.net.pretrained, as for modules.nets.PretrainedCausalLM, or use "
                "modules.adapters.LoRA."
            )
        rank_zero_warn(
            "the source of the network's weights is unknown (neither --init_from nor "
            "model.net.pretrained), so checkpoints hold the whole network. If its weights are "
            "random, an adapter learns little."
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        drop_frozen_weights(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        restore_base(self, checkpoint)
