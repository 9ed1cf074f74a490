"""TorchvisionNet: any classifier of torchvision, optionally with ImageNet weights, for transfer.

Yosinski, Clune, Bengio & Lipson, "How transferable are features in deep neural networks?" (2014). A
few hundred images are too few to learn edges, textures and parts from random weights. New here: all
layers but the output layer start from weights pretrained on ImageNet; only the output layer is new.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision import models


class TorchvisionNet(nn.Module):
    """A network of torchvision.models, from alexnet to wide_resnet101_2, with `num_classes` logits.

    Pretrained weights initialize every layer but the output layer, and that too if the number of
    classes is the same. Loading a checkpoint does not need the pretrained file again.

    Args:
        name: Its name in torchvision: squeezenet1_0, resnet50, vit_b_16, convnext_tiny, …
        num_classes: Number of logits.
        in_channels: 3 for RGB, or 1 for grayscale, which is repeated for the three channels.
        image_size: Height and width of an image in pixels. Only vision transformers are built for
            one size, pretrained ones for 224.
        pretrained: True downloads torchvision's weights; a path is a file with a state_dict,
            relative to the working directory or to data_dir; False keeps random weights.
        data_dir: Folder of the data sets; train.py links it from the data.

    Raises:
        ValueError: If there is no such network, or its weights cannot be read or do not fit.
    """

    not_in_checkpoints: ClassVar = ("pretrained", "data_dir")  # a checkpoint has all weights

    def __init__(
        self,
        name: str,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 224,
        pretrained: bool | str = False,
        data_dir: str = "data",
    ) -> None:
        super().__init__()
        known = models.list_models(module=models)
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}."
            raise ValueError(f"TorchvisionNet: torchvision has no network {name!r}; {hint}")
        if in_channels not in (1, 3):
            raise ValueError(f"TorchvisionNet: in_channels must be 1 or 3, got {in_channels}.")
        self.name = name
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.image_size = image_size
        self.pretrained = pretrained
        self.data_dir = data_dir

        arguments: dict[str, Any] = {}
        if name in ("googlenet", "inception_v3"):  # logits only, no auxiliary outputs
            arguments = {"aux_logits": False, "init_weights": True}
        elif name.startswith("vit_"):
            arguments = {"image_size": image_size}
        elif name.startswith("maxvit"):
            arguments = {"input_size": (image_size, image_size)}
        self.model = models.get_model(name, weights=None, num_classes=num_classes, **arguments)
        # In every family the last linear or convolutional layer is the output layer.
        layers = [m for m in self.model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        self._head = [layers[-1]]  # in a list, so that it is not registered twice
        if pretrained:
            self._load_weights(*self._read_weights(pretrained))

    @property
    def head(self) -> nn.Module:
        """The output layer."""
        return self._head[0]

    @property
    def backbone(self) -> nn.ModuleList:
        """All layers but the head, which callbacks.BackboneFinetuning freezes at first."""
        return nn.ModuleList(modules_without(self.model, self.head))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.in_channels == 1:
            inputs = inputs.expand(-1, 3, -1, -1)  # (B, 3, H, W)
        logits: Tensor = self.model(inputs)  # (B, num_classes)
        return logits

    def _read_weights(self, pretrained: bool | str) -> tuple[str, Mapping[str, Any]]:
        """Return where the weights come from, for messages, and the weights."""
        if pretrained is True:
            weights = models.get_model_weights(self.name).DEFAULT
            try:
                return weights.url, weights.get_state_dict(progress=False, check_hash=True)
            except OSError as error:
                raise ValueError(
                    f"TorchvisionNet: could not download {weights.url} ({error}). Download it "
                    f"elsewhere, put it into {self.data_dir} and set pretrained to its name."
                ) from error
        candidates = [Path(str(pretrained)), Path(self.data_dir, str(pretrained))]
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if path is None:
            raise ValueError(
                f"TorchvisionNet: no pretrained weights {pretrained}, neither in {os.getcwd()} nor "
                f"in the data folder {Path(self.data_dir).resolve()}. Put the file there, or let "
                "torchvision download its own with pretrained: true."
            )
        try:
            found = torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:  # unpickling an unknown file may raise anything
            reason = str(error).splitlines()[0]
            raise ValueError(f"TorchvisionNet: {path} is not a weights file: {reason}") from error
        if not isinstance(found, Mapping) or not all(isinstance(w, Tensor) for w in found.values()):
            raise ValueError(
                f"TorchvisionNet: {path} is not a state_dict. Use --init_from for the checkpoint "
                "of a run; a pickled network cannot be loaded."
            )
        return str(path), found

    def _load_weights(self, source: str, found: Mapping[str, Tensor]) -> None:
        """Load the weights of all layers, of the head only if its shape fits."""
        # The files of torchvision's DenseNets use older names.
        found = {re.sub(r"(denselayer\d+\.\w+)\.(\d\.)", r"\1\2", n): w for n, w in found.items()}
        ours = self.model.state_dict()
        head = next(name for name, module in self.model.named_modules() if module is self.head)
        for name in dict.fromkeys([*ours, *found]):
            sizes = [
                None if w is None else tuple(w.shape) for w in (ours.get(name), found.get(name))
            ]
            optional = name.startswith(("aux", "AuxLogits")) or name.endswith("num_batches_tracked")
            if sizes[0] != sizes[1] and not optional and name.rpartition(".")[0] != head:
                raise ValueError(
                    f"TorchvisionNet: {source} does not fit {self.name}: {name} has shape "
                    f"{sizes[1] or 'missing'}, expected {sizes[0] or 'missing'}."
                )
        fitting = {n: w for n, w in found.items() if n in ours and w.shape == ours[n].shape}
        if any(f"{head}.{name}" not in fitting for name, _ in self.head.named_parameters()):
            fitting = {n: w for n, w in fitting.items() if n.rpartition(".")[0] != head}
        self.model.load_state_dict(fitting, strict=False)


def modules_without(module: nn.Module, head: nn.Module) -> list[nn.Module]:
    """Return the largest submodules that do not contain the head, in order."""
    if module is head:
        return []
    if all(submodule is not head for submodule in module.modules()):
        return [module]
    parameters = list(module.parameters(recurse=False))
    own = [nn.ParameterList(parameters)] if parameters else []
    return [*own, *(part for child in module.children() for part in modules_without(child, head))]
