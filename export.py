"""Convert a checkpoint to a format of other programs.

    python export.py --checkpoint runs/…/best.ckpt --format safetensors --output weights/
    python export.py --checkpoint runs/…/best.ckpt --format huggingface --output my-gpt/
    python export.py --checkpoint runs/…/best.ckpt --format checkpoint --output one/
    python export.py --checkpoint runs/…/best.ckpt --format huggingface --merge --output merged/
    python export.py --checkpoint runs/…/best.ckpt --format onnx --quantize int8 --output onnx/

safetensors   weights of the network of any task, with its hyper-parameters as JSON in the metadata
huggingface   a GPT (as GPT-2; with rotary positions as GPT-NeoX or Llama), BERT or network of
              transformers with its tokenizer and a model card, for AutoModelForCausalLM,
              AutoModelForMaskedLM or AutoModelForSequenceClassification
word2vec      word vectors as vectors.txt, for gensim's KeyedVectors.load_word2vec_format
checkpoint    one file with weights and hyper-parameters, for train.py test, --init_from and
              generate.py
peft          an adapter of a network of transformers, for peft's PeftModel.from_pretrained
onnx          network of a classifier, regressor, tagger, language model or sentence encoder as
              model.onnx (opset 18, dynamic batch size and length), with model.json, which holds
              labels, tokenizer and preprocessing; for serve.py and any ONNX runtime. Also from a
              model folder or package:NAME
torch_export  the same network as model.pt2, for torch.export.load
mlflow        a model of MLflow for `mlflow models serve` and serve.py, for any task that serve.py
              serves, with signature and input example

The checkpoint of an adapter holds no other weights; --merge merges it into the weights that it was
trained on, and writes the complete network.

Outputs of the exported network are compared with those of the checkpoint (within 1e-4). With
--quantize int8 the weights of linear layers have 8 bits and a scale for each output channel; the
accuracy of a classifier with them on the validation split of its run, or of --data, is printed.

The checkpoint may be a folder of shards, written by engine.distributed.ModelParallel or DeepSpeed.
The latter are read with pickle, which can execute code: convert only folders from a trusted source.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FORMATS = (
    *("safetensors", "huggingface", "word2vec", "checkpoint", "peft", "onnx", "torch_export"),
    "mlflow",
)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("export.py", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="PATH", help="a .ckpt file or folder")
    add("--format", required=True, choices=FORMATS, help="output format")
    add("--output", type=Path, required=True, metavar="FOLDER", help="a new or empty folder")
    add("--merge", action="store_true", help="merge the adapter into the weights of its base")
    add("--quantize", choices=("int8",), help="quantize the weights; for --format onnx")
    add("--data", type=Path, metavar="CONFIG", help="data of --quantize (default: the run's)")
    add("--data_dir", metavar="FOLDER", help="folder of the data sets (default: the config's)")
    return parser


def mlflow_writer() -> "Callable[[Path, Path], None]":
    from engine.errors import UserError

    try:
        from integrations.mlflow_model import save_model
    except ImportError as error:
        raise UserError(
            f"--format mlflow needs the package {error.name}: pip install "
            "'stepladder[mlflow,serve]'."
        ) from error
    return save_model


def main(args: list[str] | None = None) -> Path:
    """Run the command line; from Python: `main(["--checkpoint", …])`.

    Args:
        args: Arguments; those of the process by default.

    Returns:
        The output folder.

    Raises:
        SystemExit: With code 2 and one message on stderr after a user error.
    """
    from engine.process import escape_unencodable_output

    escape_unencodable_output()
    options = parser().parse_args(args)
    from engine.errors import exit_on_user_error
    from engine.process import quiet_deepspeed
    from modules.inference.export import export

    quiet_deepspeed()
    folder: Path = options.output
    checkpoint, merge = options.checkpoint.expanduser(), options.merge
    with exit_on_user_error("export.py"):
        write = mlflow_writer() if options.format == "mlflow" else None
        files = export(
            checkpoint, options.format, folder.expanduser(), merge, bool(options.quantize), write
        )
        print(f"written: {' '.join(map(str, files))}")
        if options.quantize:
            from scripts.evaluation.quantization import accuracy_cost

            print(accuracy_cost(checkpoint, folder, merge, options.data, options.data_dir))
    return folder


if __name__ == "__main__":
    main()
