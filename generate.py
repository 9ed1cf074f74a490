"""Continue a text with a language model: a checkpoint is all that is needed.

    python generate.py --checkpoint runs/shakespeare-gpt/001/checkpoints/best.ckpt --prompt "ROMEO:"
    python generate.py --checkpoint FOLDER --prompts_file prompts.txt --output answers.txt

A Hugging Face folder of a GPT-2 (config.json, model.safetensors, tokenizer.json) is read as well.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # --help is answered before torch is imported
    import torch

    from modules.language_model import LanguageModel


PRECISIONS = {"32-true": "float32", "bf16-true": "bfloat16", "16-true": "float16"}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("generate.py", description=__doc__, allow_abbrev=False)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.usage = "generate.py --checkpoint PATH (--prompt TEXT | --prompts_file FILE) [options]"
    add = made.add_argument
    add("--checkpoint", type=Path, required=True, metavar="PATH", help="a .ckpt file or a folder")
    texts = made.add_mutually_exclusive_group(required=True)
    texts.add_argument("--prompt", metavar="TEXT", help="text to continue, shown as it is drawn")
    texts.add_argument(
        "--prompts_file",
        type=Path,
        metavar="FILE",
        help="texts to continue, one a line, all at once; empty lines are left out",
    )
    add("--output", type=Path, metavar="FILE", help="also write prompts and answers to this file")
    add("--max_new_tokens", type=int, default=500, metavar="N", help="tokens to draw (500)")
    add("--temperature", type=float, default=1.0, help="above 0: low is bold, 1 as trained (1.0)")
    add("--top_k", type=int, metavar="K", help="draw from the K likeliest tokens only")
    add("--top_p", type=float, metavar="P", help="draw from the likeliest that add up to P, 0 to 1")
    add("--repetition_penalty", type=float, default=1.0, help="above 1: repeat less (1.0)")
    add("--seed", type=int, metavar="N", help="the same seed gives the same text")
    add("--stop", metavar="TEXT", help="end before this text; it is not shown")
    add("--device", default="auto", help="cpu, cuda, mps; the fastest there is by default (auto)")
    add(
        "--precision",
        choices=PRECISIONS,
        default="32-true",
        help="of the weights: with 16 bits they take half the memory, and large nets write faster, "
        "if not always the same text (32-true)",
    )
    return made


def main(args: list[str] | None = None) -> None:
    """Run the command line; the same from Python: `main(["--checkpoint", …])`.

    Args:
        args: Arguments; those of the process by default.

    Raises:
        SystemExit: With code 2 after a user's mistake, told in one sentence on stderr.
    """
    options = parser().parse_args(args)
    import torch
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from engine.errors import exit_on_user_error
    from modules.inference.generation import check_arguments
    from modules.inference.pretrained import open_language_model

    sampling = {
        name: getattr(options, name)
        for name in ("temperature", "top_k", "top_p", "repetition_penalty", "seed")
    }
    with exit_on_user_error("generate.py"):
        prompts = _prompts(options)
        # Any text has a token: what is wrong with the numbers is told before anything is loaded.
        check_arguments([[0]] * len(prompts), options.max_new_tokens, **sampling)
        if options.stop == "":
            raise MisconfigurationException("--stop is empty: leave it out, or name a text.")
        if options.output is not None and not options.output.parent.is_dir():
            raise MisconfigurationException(f"--output: there is no folder {options.output.parent}")
        model = open_language_model(options.checkpoint)
        model.to(_device(options.device), getattr(torch, PRECISIONS[options.precision]))
        for prompt in prompts:
            _say_what_is_not_read(model, prompt)
        sampling |= {"max_new_tokens": options.max_new_tokens, "stop": options.stop}
        if options.prompt is None:
            texts = _answer_all(model, prompts, sampling)
        else:
            texts = [_stream(model, options.prompt, sampling)]
    if options.output is not None:
        options.output.write_text("\n".join(texts), encoding="utf-8")


def _prompts(options: argparse.Namespace) -> list[str]:
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    if options.prompt is not None:
        if not options.prompt:
            raise MisconfigurationException(
                'the prompt is empty: give at least one character, for example --prompt "A".'
            )
        try:
            options.prompt.encode()
        except UnicodeEncodeError as error:
            raise MisconfigurationException("the prompt is not in UTF-8.") from error
        return [options.prompt]
    try:
        lines = options.prompts_file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise MisconfigurationException(
            f"{options.prompts_file} can't be read as a text in UTF-8: {error}."
        ) from error
    prompts = [line for line in lines if line]
    if not prompts:
        raise MisconfigurationException(
            f"{options.prompts_file} holds no prompt: write one a line."
        )
    return prompts


def _device(name: str) -> "torch.device":
    import torch
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
        return torch.device("cuda")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first_line = str(error).splitlines()[0]
        raise MisconfigurationException(f"--device {name} can't be used: {first_line}") from error


def _say_what_is_not_read(model: "LanguageModel", prompt: str) -> None:
    context: int | None = model.net.context  # type: ignore[assignment]
    length = len(model.encode(prompt))
    if context is not None and length > context:
        sys.stderr.write(
            f"The prompt has {length} tokens and the net sees {context}: it reads the last part.\n"
        )


def _stream(model: "LanguageModel", prompt: str, sampling: dict) -> str:
    text = prompt
    print(prompt, end="", flush=True)
    for (piece,) in model.stream([prompt], **sampling):
        print(piece, end="", flush=True)
        text += piece
    print()
    return text + "\n"


def _answer_all(model: "LanguageModel", prompts: list[str], sampling: dict) -> list[str]:
    answers = model.generate(prompts, **sampling)
    texts = [prompt + answer + "\n" for prompt, answer in zip(prompts, answers, strict=True)]
    for number, text in enumerate(texts, start=1):
        print(f"--- {number} of {len(texts)} ---")
        print(text)
    return texts


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # not all consoles know é
    try:
        main()
    except KeyboardInterrupt:  # the reader has enough
        print()
        sys.exit(130)
    except BrokenPipeError:  # so has `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
