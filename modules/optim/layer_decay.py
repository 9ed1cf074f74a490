"""AdamW whose learning rate decreases from the last layer of a network to the first."""

import re
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim import AdamW

NUMBERED = re.compile(r"(.*?)\.(\d+)\.")


class LayerDecayAdamW(AdamW):
    """AdamW with layer-wise learning-rate decay, for fine-tuning.

    Lower layers of a pretrained network are more general and need to change less (Howard & Ruder
    2018, "discriminative fine-tuning"; Clark et al. 2020, ELECTRA). With `L` numbered layers, such
    as `encoder.layer.0` to `encoder.layer.5`:

        lr(head) = lr      lr(layer i) = lr · decay^(L - i)      lr(embeddings) = lr · decay^(L + 1)

    The numbered layers are those of the module list with the most parameters. What is registered
    before them counts as embeddings, what is registered after them as the head. Tasks pass the
    names of their parameters to `set_layers`; schedules scale all learning rates alike.

    Args:
        params: Parameters.
        lr: Learning rate of the head.
        betas: Betas of AdamW.
        eps: Epsilon of AdamW.
        weight_decay: Weight decay.
        layer_decay: Factor of the learning rate from a layer to the one below, in (0, 1].
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        layer_decay: float = 0.9,
    ) -> None:
        if not 0 < layer_decay <= 1:
            raise ValueError(f"LayerDecayAdamW: layer_decay must be in (0, 1], got {layer_decay}.")
        self.layer_decay = layer_decay
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)

    def set_layers(self, named_parameters: Iterable[tuple[str, Tensor]]) -> None:
        """Give the parameters of each layer a group with its learning rate.

        Args:
            named_parameters: Those of the task, in the order of registration.

        Raises:
            ValueError: If there are no numbered layers.
        """
        levels = layer_levels(named_parameters)
        highest = max(levels.values())
        (group,) = self.param_groups
        by_level: dict[int, list[Tensor]] = {}
        for parameter in group["params"]:
            by_level.setdefault(levels[id(parameter)], []).append(parameter)
        self.param_groups.clear()
        for level, parameters in sorted(by_level.items(), reverse=True):
            rate = group["lr"] * self.layer_decay ** (highest - level)
            settings: dict[str, Any] = {**group, "params": parameters, "lr": rate}
            self.add_param_group(settings)


def layer_levels(named_parameters: Iterable[tuple[str, Tensor]]) -> dict[int, int]:
    """Return the level of each parameter by its id: embeddings 0, layers 1 … L, head L + 1.

    Raises:
        ValueError: If there are no numbered layers.
    """
    named = list(named_parameters)
    sizes: dict[str, int] = {}
    for name, parameter in named:
        if found := NUMBERED.match(name):
            sizes[found[1]] = sizes.get(found[1], 0) + parameter.numel()
    if not sizes:
        raise ValueError("LayerDecayAdamW: the network has no numbered layers, such as blocks.0")
    layers = max(sizes, key=lambda prefix: sizes[prefix])
    numbers = {
        name: int(found[2])
        for name, _ in named
        if (found := NUMBERED.match(name)) and found[1] == layers
    }
    level_of = {number: level for level, number in enumerate(sorted(set(numbers.values())), 1)}
    levels, outside = {}, 0
    for name, parameter in named:
        if name in numbers:
            outside = len(level_of) + 1  # what follows the layers
        levels[id(parameter)] = level_of[numbers[name]] if name in numbers else outside
    return levels
