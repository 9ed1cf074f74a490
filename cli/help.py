"""Help texts of train.py, most of them without importing torch."""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from cli.options import OPTIONS

PROJECT = Path(__file__).parent.parent
USAGE = """Train, validate, test or predict: config files in, a run folder out.

  python train.py fit      --config configs/digits/cnn.yaml
  python train.py fit      --config configs/mnist/cnn.yaml --config configs/logger/wandb.yaml
  python train.py fit      --config configs/mnist/cnn.yaml --trainer.max_epochs 3
  python train.py fit      --resume runs/mnist-cnn/001
  python train.py validate --ckpt_path runs/mnist-cnn/001/checkpoints/best.ckpt
  python train.py test     --ckpt_path runs/mnist-cnn/001/checkpoints/best.ckpt
  python train.py predict  --ckpt_path runs/mnist-cnn/001/checkpoints/best.ckpt

Later configs and flags override earlier ones. The evaluation of a checkpoint uses the config of its
run folder unless another is given. `python train.py fit --help` lists the options.
"""
PURPOSES = {
    "fit": "Train, then evaluate the best checkpoint.",
    "validate": "Evaluate a checkpoint on the validation split.",
    "test": "Evaluate a checkpoint on the test split.",
    "predict": "Write predictions.csv for the data of a checkpoint, or for --data.predict FILE.",
}
OVERLAYS = ("trainer", "logger", "optimizer", "schedule", "size", "adapter")
NOT_CONFIGS = ("search", "sweep")
LISTS = {  # key: package of its classes, their base class ("" for any), and what they are
    "model": ("modules", "", "tasks"),
    "model.net": ("modules.nets", "", "networks"),
    "model.optimizer": ("modules.optim", "", "optimizers and schedules, in addition to torch's"),
    "model.lr_scheduler": ("modules.optim", "", "optimizers and schedules, in addition to torch's"),
    "data": ("datamodules", "LightningDataModule", "data modules"),
    "data.augmentation": ("datamodules", "Module", "transforms, in addition to torchvision's"),
    "trainer.callbacks": ("callbacks", "", "callbacks, in addition to Lightning's"),
}
GROUPS = {  # key: class whose arguments are below it
    "trainer": "lightning.Trainer",
    "checkpoint": "engine.checkpoint.writing.Checkpoints",
    "tracking": "engine.run.trackers.TrackerArtifacts",
}
FREQUENT = {
    "max_epochs N": "Number of epochs; max_steps counts optimizer steps.",
    "precision P": "32-true, bf16-mixed, 16-mixed, …",
    "devices N": "Number of devices; with several also --trainer.strategy ddp.",
    "accelerator A": "cpu, gpu, mps or auto.",
    "accumulate_grad_batches N": "Batches per optimizer step.",
    "gradient_clip_val X": "Maximum norm of the gradient.",
    "val_check_interval X": "Validate after this many batches, or fraction of an epoch.",
    "limit_train_batches N": "Train on fewer batches per epoch.",
    "fast_dev_run true": "Run one batch of each stage and write nothing.",
}


def help_text(words: Sequence[str]) -> str | None:
    """The help that a command line asks for; None if it asks for none.

    Args:
        words: The arguments, as in `sys.argv[1:]`.
    """
    if not words or words[0] in ("-h", "--help"):
        return USAGE
    for position, word in enumerate(words[1:], 1):
        if word in ("-h", "--help"):
            return subcommand_help(words[0])
        name, _, value = word.partition("=")
        if name.startswith("--") and name.endswith(".help"):
            following = "".join(words[position + 1 : position + 2])
            chosen = value or ("" if following.startswith("--") else following)
            return key_help(name[2 : -len(".help")].replace(".init_args", ""), chosen)
    return None


def subcommand_help(subcommand: str) -> str:
    """The options of a subcommand, in groups."""
    folders = sorted(p.name for p in (PROJECT / "configs").glob("*/") if p.name not in NOT_CONFIGS)
    experiments = [name for name in folders if name not in OVERLAYS]
    lines = [
        f"python train.py {subcommand} --config EXPERIMENT [--config OVERLAY …] [--KEY VALUE …]",
        "",
        PURPOSES.get(subcommand, f"Unknown subcommand; choose from {', '.join(PURPOSES)}."),
        "",
        "Config files",
        *_entry("--config FILE", f"configs/{{{','.join(experiments)}}}/*.yaml: experiments"),
    ]
    for folder in (name for name in OVERLAYS if name in folders):
        names = ", ".join(sorted(path.stem for path in (PROJECT / "configs" / folder).iterdir()))
        lines += _entry("", f"configs/{folder}/: {names}")
    lines += _entry("--print_config", "Print the resolved config and exit.")
    lines += ["", "Run"]
    if subcommand != "fit":
        lines += _entry("--ckpt_path FILE", "Checkpoint to evaluate.")
    for name, (_, default, text) in OPTIONS.items():
        shown = f" (default: {default})" if default not in (None, {}) else ""
        lines += _entry(f"--{name}", text + shown)
    lines += _entry("--seed_everything N", "Seed of weights, data and dropout (default: 0).")
    for key, path in GROUPS.items():
        if key != "trainer":
            lines += _entry(f"--{key}.…", f"--{key}.help lists them: {_purpose(path)}")
    lines += [
        "",
        "Task, network and data: --KEY.help lists classes, --KEY.help CLASS its arguments",
    ]
    for key, (package, base, _) in LISTS.items():
        if key not in ("model.lr_scheduler", "model.optimizer"):
            lines += _entry(f"--{key} CLASS", ", ".join(n for n, _ in list_classes(package, base)))
    lines += _entry(
        "--model.optimizer CLASS", "SGD, Adam, AdamW, … of torch.optim; then --model.optimizer.lr X"
    )
    lines += _entry(
        "--model.lr_scheduler CLASS",
        "modules.optim.WarmupCosine, torch.optim.lr_scheduler.StepLR, …",
    )
    lines += ["", "Trainer: --trainer.help lists all arguments of lightning.Trainer"]
    for name, text in FREQUENT.items():
        lines += _entry(f"--trainer.{name}", text)
    return "\n".join(lines)


def key_help(key: str, chosen: str) -> str:
    """The classes that a key may have, or the arguments of one of them.

    Args:
        key: The key, such as `model.net`.
        chosen: A class path or bare name; empty for the list.
    """
    if key in GROUPS:
        return class_help(GROUPS[key], key)
    if chosen:
        return class_help(chosen, key)
    if key not in LISTS:
        return f"There is no list of classes for {key}. Lists: {', '.join([*LISTS, *GROUPS])}."
    package, base, kind = LISTS[key]
    lines = [f"--{key} CLASS: {kind}", ""]
    for name, text in list_classes(package, base):
        lines += _entry(f"{package}.{name}", text, width=38)
    return "\n".join([*lines, "", f"--{key}.help CLASS lists the arguments of a class."])


def class_help(path: str, key: str) -> str:
    """The arguments of a class with types, defaults and documentation."""
    import lightning as L
    from torch import nn

    from cli.diagnosis import describe_type
    from cli.signatures import find_class, import_path, parameters
    from engine.errors import UserError, exit_on_user_error

    base = {"model": L.LightningModule, "data": L.LightningDataModule}.get(key, nn.Module)
    with exit_on_user_error("train.py"):
        try:
            owner = find_class(path, base) or import_path(path)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(f"--{key}.help: there is no class {path}.") from error
    documented = _documented_arguments(owner)
    lines = [f"{path}: {(inspect.getdoc(owner) or '').partition(chr(10))[0]}", ""]
    for name, parameter in parameters(owner).items():
        if parameter.annotation is parameter.empty:
            kind = ""
        else:
            kind = describe_type(parameter.annotation)
        required = parameter.default is parameter.empty
        note = "required" if required else f"default: {parameter.default!r}"
        lines += _entry(f"--{key}.{name}", f"{documented.get(name, '')} ({kind}; {note})".strip())
    return "\n".join(lines)


def _documented_arguments(owner: Any) -> dict[str, str]:
    """Text of each argument in the docstrings of a class and its bases."""
    import docstring_parser

    found: dict[str, str] = {}
    for cls in inspect.getmro(owner) if isinstance(owner, type) else [owner]:
        for text in (cls.__doc__, getattr(cls.__dict__.get("__init__"), "__doc__", None)):
            for argument in docstring_parser.parse(text or "").params:
                found.setdefault(argument.arg_name, " ".join((argument.description or "").split()))
    return found


def list_classes(package: str, base: str = "") -> Iterator[tuple[str, str]]:
    """Yield name and first docstring sentence of each exported class, without importing it.

    Args:
        package: Package whose `__init__.py` exports the classes.
        base: Name of a direct or indirect base class of all listed classes; empty for any.
    """
    exported = _imports(_parse(f"{package}.__init__"))
    for name, path in sorted(exported.items()):
        ours = path.partition(".")[0] == package.partition(".")[0]
        if name[0].isupper() and ours and (not base or base in _base_names(path)):
            yield name, _purpose(path)


@cache
def _parse(module: str) -> ast.Module:
    """Parse a module of this project; any other module is empty."""
    file = PROJECT / (module.replace(".", "/") + ".py")
    return ast.parse(file.read_text(encoding="utf-8") if file.is_file() else "")


def _imports(tree: ast.Module) -> dict[str, str]:
    """Return the names that a module imports with `from`, and their full paths."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {a.asname or a.name: f"{node.module}.{a.name}" for node in nodes for a in node.names}


@cache
def _definition(path: str) -> tuple[ast.Module, ast.ClassDef | None]:
    """Return the module of a class and the definition of the class, if it is of this project."""
    module, _, name = path.rpartition(".")
    tree = _parse(module)
    classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    return tree, next((node for node in classes if node.name == name), None)


def _base_names(path: str) -> set[str]:
    """Return the names of the direct and indirect base classes of a class."""
    tree, definition = _definition(path)
    imports = _imports(tree)
    names: set[str] = set()
    for base in definition.bases if definition else []:
        name = ast.unparse(base)
        names |= {name.rpartition(".")[2]}
        names |= _base_names(imports.get(name, f"{path.rpartition('.')[0]}.{name}"))
    return names


def _purpose(path: str) -> str:
    """Return the first sentence of a class's docstring, read from its file."""
    _, definition = _definition(path)
    text = (ast.get_docstring(definition) if definition else None) or ""
    return text.partition("\n\n")[0].replace("\n", " ")


def _entry(name: str, text: str, width: int = 26) -> list[str]:
    """Lines of a name and its text, aligned."""
    body = textwrap.wrap(text, 100 - width - 2) or [""]
    if len(name) > width - 1:
        return [f"  {name}", *(f"  {' ' * width}{line}" for line in body)]
    return [f"  {name:<{width}}{body[0]}", *(f"  {' ' * width}{line}" for line in body[1:])]
