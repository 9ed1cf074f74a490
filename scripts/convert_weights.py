"""Convert the pickled weights of a Hugging Face folder to safetensors.

    python -m scripts.convert_weights FOLDER

pytorch_model*.bin become one model.safetensors in the same folder. The files are read with
`weights_only=True`, so that no code of theirs is executed.
"""

import argparse
import pickle
from pathlib import Path

import torch
from safetensors.torch import save_file

from engine.errors import UserError, exit_on_user_error


def convert(folder: Path) -> Path:
    """Write the weights of all pytorch_model*.bin to model.safetensors and return its path.

    Raises:
        UserError: If there are none, or a file cannot be read without executing code.
    """
    files = sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise UserError(f"{folder} has no pytorch_model.bin to convert.")
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
            # Cloned: safetensors refuses tensors that share memory, such as tied weights.
            tensors |= {name: tensor.clone().contiguous() for name, tensor in content.items()}
        except (pickle.UnpicklingError, RuntimeError, AttributeError, EOFError) as error:
            raise UserError(
                f"{file} is not a plain state_dict and cannot be read without executing code: "
                f"{str(error).splitlines()[0]}"
            ) from error
    target = folder / "model.safetensors"
    save_file(tensors, target, metadata={"format": "pt"})
    return target


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        "scripts.convert_weights", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, help="folder with config.json and pytorch_model.bin")
    options = parser.parse_args(args)
    with exit_on_user_error("scripts.convert_weights"):
        print(f"written: {convert(options.folder.expanduser())}")


if __name__ == "__main__":
    main()
