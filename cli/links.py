"""Links that copy what the data determine (sizes, class names, tokenizers) to task and network."""

import inspect
from typing import Any

import lightning as L
from lightning.pytorch.cli import LightningArgumentParser
from torch import nn

from cli.arguments import Arguments, Setting
from cli.signatures import find_class, parameters
from engine.errors import UserError

TASK_ARGUMENTS = {  # argument of the task: attribute of the data module
    "num_classes": "num_classes",
    "class_names": "class_names",
    "preprocessing": "preprocessing",
    "tokenizer": "tokenizer_json",
    "chat_template": "chat_template",
    "source_tokenizer": "source_tokenizer_json",
    "target_tokenizer": "target_tokenizer_json",
}
NET_ARGUMENTS = (
    *("num_classes", "in_channels", "image_size", "vocab_size", "context"),
    *("source_vocab_size", "target_vocab_size", "shared_vocabulary"),
    "data_dir",  # for a network that starts from pretrained weights
)


class Links:
    """The links that apply to a command line: the target takes the argument and none is given.

    Args:
        arguments: The command line.
    """

    def __init__(self, arguments: Arguments) -> None:
        self.arguments = arguments
        self.task = find_class(arguments.chosen_class("model"), L.LightningModule)
        self.data = find_class(arguments.chosen_class("data"), L.LightningDataModule)
        net = arguments.chosen_class("model.net")
        self.net = find_class(net, nn.Module) if "net" in parameters(self.task) else None
        if net is not None and self.net is None and net.startswith("torchvision.models."):
            raise UserError(
                f"model.net: {net} is a function, not a class. Write --model.net "
                f"modules.nets.TorchvisionNet --model.net.name {net.rpartition('.')[2]}."
            )
        self.targets = {  # key of the target: attribute of the data module
            **{
                f"model.{name}": s
                for name, s in TASK_ARGUMENTS.items()
                if self._takes("task", name)
            },
            **{f"model.net.{name}": name for name in NET_ARGUMENTS if self._takes("net", name)},
        }

    def _takes(self, owner: str, name: str) -> bool:
        return name in parameters(getattr(self, owner))

    @property
    def seeds_data(self) -> bool:
        return self._takes("data", "seed") and self.arguments.explicit("data.seed") is None

    def add_to(self, parser: LightningArgumentParser) -> None:
        if self.seeds_data:
            parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=_as_seed)
        for key, attribute in self.targets.items():
            if self.arguments.explicit(key) is None:
                target = key.replace("model.", "model.init_args.").replace("net.", "net.init_args.")
                parser.link_arguments(f"data.{attribute}", target, apply_on="instantiate")

    def check_required(self, data: L.LightningDataModule | None) -> None:
        """Check that the data define what task and network cannot be built without.

        Raises:
            UserError: Naming the argument.
        """
        for key, attribute in self.targets.items():
            owner = self.net if key.startswith("model.net.") else self.task
            name = key.rpartition(".")[2]
            required = parameters(owner)[name].default is inspect.Parameter.empty
            given = self.arguments.explicit(key) is not None or hasattr(data, attribute)
            if required and not given and owner is not None:
                raise UserError(
                    f"{owner.__name__} requires {name!r}: pass --{key} VALUE, or define "
                    f"`{attribute}` in {type(data).__name__}."
                )

    def check(self, data: L.LightningDataModule | None, task: L.LightningModule) -> None:
        """Compare what the command line sets with what the data are.

        Raises:
            UserError: If a size or name set for task or network differs from that of the data, or
                if the number of classes is given by neither.
        """
        for key, attribute in self.targets.items():
            setting, found = self.arguments.explicit(key), getattr(data, attribute, None)
            if setting is None or found is None or attribute == "data_dir":
                continue
            if _plain(setting.value) != _plain(found):
                raise UserError(_disagreement(setting, type(data).__name__, attribute, found))
        counted = (
            getattr(task, "targets_are_classes", False) and "model.num_classes" in self.targets
        )
        given = self.arguments.explicit("model.num_classes") or hasattr(data, "num_classes")
        if counted and data is not None and not given:
            raise UserError(
                f"{type(data).__name__} has no attribute `num_classes`, which "
                f"{type(task).__name__} needs: define it, or pass --model.num_classes N"
                f"{' --model.net.num_classes N' if self._takes('net', 'num_classes') else ''}."
            )


def _as_seed(seed: bool | int) -> int:
    return 0 if isinstance(seed, bool) else seed  # True: a random one replaces it after parsing


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value


def _disagreement(setting: Setting, data: str, attribute: str, found: Any) -> str:
    value, shown = (f"{v!r}"[:60] for v in (setting.value, found))
    return (
        f"{setting.key} is {value} ({setting.source}), but {data}.{attribute} is {shown}: leave it "
        "out, it is set from the data."
    )
