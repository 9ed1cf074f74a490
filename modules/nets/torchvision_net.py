"""Transfer: any of torchvision's nets, with what it learnt from a million photographs of ImageNet.

Yosinski, Clune, Bengio & Lipson, "How transferable are features in deep neural networks?" (2014).
The rungs below begin with random weights, and a few hundred photographs are too few to learn from
them what an edge, a texture or an eye is. Here all layers but the last come from a net that knows;
only the last, which names the classes, is new.
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
    """A net of torchvision.models, from alexnet to wide_resnet101_2, with logits for our classes.

    Pretrained weights are taken for every layer but the last, and for that too where it has as many
    outputs as we have classes. They are needed once: a checkpoint holds all weights, so that
    loading it asks for no pretrained file again.

    Args:
        name: As torchvision writes it: squeezenet1_0, resnet50, vit_b_16, convnext_tiny, …
        num_classes: Number of logits.
        in_channels: 3, or 1: grey is then given as red, green and blue alike.
        image_size: Height and width of a picture in pixels. Only vision transformers are built for
            one size, and pretrained ones for 224.
        pretrained: True for torchvision's own weights, which it downloads; or a file with a
            state_dict of the net, looked for as it stands and then in data_dir; False: random.
        data_dir: Folder of the data sets; train.py links it from the data.

    Raises:
        ValueError: If there is no such net, or the weights can't be had or are not of that net.
    """

    not_in_checkpoints: ClassVar = ("pretrained", "data_dir")  # where its weights came from

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
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            meant = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}."
            raise ValueError(f"TorchvisionNet: torchvision has no net {name!r}; {meant}")
        if in_channels not in (1, 3):
            raise ValueError(f"TorchvisionNet: in_channels must be 1 or 3, not {in_channels}.")
        self.name = name
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.image_size = image_size
        self.pretrained = pretrained
        self.data_dir = data_dir

        arguments: dict[str, Any] = {}
        if name in ("googlenet", "inception_v3"):  # logits, and no tuple of losses
            arguments = {"aux_logits": False, "init_weights": True}
        elif name.startswith("vit_"):
            arguments = {"image_size": image_size}
        elif name.startswith("maxvit"):
            arguments = {"input_size": (image_size, image_size)}
        self.model = models.get_model(name, weights=None, num_classes=num_classes, **arguments)
        # In every family the last layer with a matrix makes the logits.
        layers = [m for m in self.model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        self._head = [layers[-1]]  # in a list: else it would be a second name of its weights
        if pretrained:
            self._take(*self._read(pretrained))

    @property
    def head(self) -> nn.Module:
        """The last layer, which makes the logits."""
        return self._head[0]

    @property
    def backbone(self) -> nn.ModuleList:
        """All but the head: what is frozen at first when a pretrained net learns new classes."""
        return nn.ModuleList(without(self.model, self.head))

    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures (B, C, height, width) to logits (B, num_classes)."""
        if self.in_channels == 1:
            inputs = inputs.expand(-1, 3, -1, -1)  # (B, 3, height, width)
        logits: Tensor = self.model(inputs)
        return logits

    def _read(self, pretrained: bool | str) -> tuple[str, Mapping[str, Any]]:
        """Where the weights are from, in words, and the weights."""
        if pretrained is True:
            weights = models.get_model_weights(self.name).DEFAULT
            try:
                return weights.url, weights.get_state_dict(progress=False, check_hash=True)
            except OSError as error:
                raise ValueError(
                    f"TorchvisionNet: {weights.url} could not be downloaded ({error}). Fetch it "
                    f"elsewhere, put it into {self.data_dir} and give pretrained its name."
                ) from error
        places = [Path(str(pretrained)), Path(self.data_dir, str(pretrained))]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise ValueError(
                f"TorchvisionNet: there are no pretrained weights {pretrained}, neither here in "
                f"{os.getcwd()} nor in the data folder {Path(self.data_dir).resolve()}. Put the "
                "file there, or let torchvision download its own: pretrained: true."
            )
        try:
            found = torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:  # in a file of unknown origin the unpickler may meet anything
            first = str(error).splitlines()[0]
            raise ValueError(f"TorchvisionNet: {path} is no file of weights: {first}") from error
        if not isinstance(found, Mapping) or not all(isinstance(w, Tensor) for w in found.values()):
            raise ValueError(
                f"TorchvisionNet: {path} is no state_dict of names and weights. The checkpoint of "
                "a run is taken by --init_from, a net saved whole by none."
            )
        return str(path), found

    def _take(self, source: str, found: Mapping[str, Tensor]) -> None:
        """Copy the weights of all layers, of the head only where it fits."""
        # The files of torchvision's DenseNets are older than its names.
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
                    f"TorchvisionNet: {source} does not fit {self.name}: {name} is "
                    f"{sizes[1] or 'missing'} there and {sizes[0] or 'missing'} in the net."
                )
        fitting = {n: w for n, w in found.items() if n in ours and w.shape == ours[n].shape}
        if any(f"{head}.{name}" not in fitting for name, _ in self.head.named_parameters()):
            fitting = {n: w for n, w in fitting.items() if n.rpartition(".")[0] != head}
        self.model.load_state_dict(fitting, strict=False)


def without(module: nn.Module, head: nn.Module) -> list[nn.Module]:
    """The parts of a module that do not hold the head, in their order, as large as can be."""
    if module is head:
        return []
    if all(part is not head for part in module.modules()):
        return [module]
    parameters = list(module.parameters(recurse=False))
    own = [nn.ParameterList(parameters)] if parameters else []
    return [*own, *(part for child in module.children() for part in without(child, head))]
