"""Convert GGUF files, the format of llama.cpp, to folders of the Hugging Face format."""

import hashlib
import shutil
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path


def convert_gguf(path: Path) -> Path:
    """Return the folder of a GGUF file's model, with float32 weights and the tokenizer.

    It is created on first use, which takes some seconds per 100 million parameters and four bytes
    per parameter of disk, in the user's cache directory (XDG_CACHE_HOME).

    Args:
        path: The GGUF file.

    Raises:
        ValueError: If the file is damaged, or its architecture or quantization is not supported.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = user_cache_path("stepladder") / "gguf" / f"{path.stem}-{digest[:16]}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # other processes wait
        if not folder.is_dir():
            incomplete = folder.with_name(f"{folder.name}.incomplete")
            shutil.rmtree(incomplete, ignore_errors=True)
            _convert(path, incomplete)
            incomplete.rename(folder)
    return folder


def _convert(path: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    licence = _check(path)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype="float32"
        )
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except (ValueError, NotImplementedError, KeyError) as error:
        raise ValueError(f"{path} cannot be converted: {error}") from error
    # Otherwise `save_pretrained` refuses to write the weights, as if they were still quantized.
    del model.config.quantization_config
    plain = type(model)(model.config)
    plain.load_state_dict(model.state_dict())
    plain.generation_config = model.generation_config
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if licence:
        (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n", encoding="utf-8")


def _check(path: Path) -> str | None:
    """Check that every tensor can be dequantized; return the license that the file states."""
    from gguf import GGUFReader, dequantize

    try:
        reader = GGUFReader(path)
        for tensor in {tensor.tensor_type: tensor for tensor in reader.tensors}.values():
            dequantize(tensor.data[:1], tensor.tensor_type)
    except NotImplementedError as error:
        raise ValueError(
            f"{path}: the quantization {tensor.tensor_type.name} is not supported; choose another "
            "file of this model, such as Q4_K_M or Q8_0"
        ) from error
    except Exception as error:  # the reader raises anything on a damaged file
        raise ValueError(f"{path} is not a GGUF file, or is damaged: {error}") from error
    field = reader.get_field("general.license")
    return None if field is None else str(field.contents())
