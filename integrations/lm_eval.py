"""Evaluate a language model with EleutherAI's lm-evaluation-harness.

    python -m integrations.lm_eval --checkpoint SOURCE --tasks wikitext,hellaswag --limit 100
    python -m integrations.lm_eval --checkpoint SOURCE --tasks my_task --include_path tasks/

A task is one of the harness or a YAML file of a folder, `--include_path`, whose data may be local
files. From Python, `lm_eval.simple_evaluate(model=LanguageModelLM("SOURCE"), tasks=[…])`. The
numbers are those of the harness's own `hf` model for the same folder, whatever the batch size.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from engine.errors import UserError, exit_on_user_error
from engine.process import escape_unencodable_output
from modules.inference.pretrained import open_language_model
from modules.training.compiling import eager_mode

DEFAULT_CONTEXT = 2048  # of networks without a limit, as in the harness
Request = tuple[Any, list[int], list[int]]  # key, tokens of the context, tokens to score


class LanguageModelLM(TemplateLM):
    """A LanguageModel as a model of the harness.

    Args:
        checkpoint: A checkpoint, a Hugging Face folder or another source of generate.py.
        batch_size: Number of texts per forward pass, at least 1.
        device: Device of the network.

    Raises:
        UserError: If the model cannot be read, or has no token that a text can start with.
    """

    def __init__(self, checkpoint: str | Path, batch_size: int = 8, device: str = "cpu") -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {batch_size}.")
        self.model = open_language_model(checkpoint).to(device)
        self.batch_size = batch_size
        self._device = torch.device(device)
        self.max_length: int = self.model.net.context or DEFAULT_CONTEXT  # type: ignore[assignment]
        self._bos = _special_token(Path(checkpoint), "bos_token") or self.model.bos_token()
        self._eos = _special_token(Path(checkpoint), "eos_token")
        found = self._bos or self._eos
        if not found and not self.model.end_tokens:
            raise UserError(
                f"{checkpoint}: the tokenizer has no beginning- or end-of-sequence token, with "
                "which the harness starts a text."
            )
        self._prefix = self._token(found) if found else min(self.model.end_tokens)

    def _token(self, text: str) -> int:
        token: int | None = self.model.tokenizer.token_to_id(text)  # type: ignore[union-attr]
        if token is None:
            raise UserError(f"tokenizer_config.json names {text!r}, which is not a token.")
        return token

    @property
    def eot_token_id(self) -> int:
        return self._token(self._eos) if self._eos else self._prefix

    @property
    def prefix_token_id(self) -> int:
        return self._prefix

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        if add_special_tokens is None:
            add_special_tokens = not (self._bos and string.startswith(self._bos))
        return self.model.encode(string, add_special_tokens)

    def loglikelihood_rolling(self, requests: list, disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of each text in disjoint windows of the context."""
        windows: list[Request] = []
        for number, request in enumerate(requests):
            pairs = get_rolling_token_windows(
                self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length, 1
            )
            windows += [(number, *make_disjoint_window(pair)) for pair in pairs]
        totals = [0.0] * len(requests)
        scores = self._loglikelihood_tokens(windows)
        for (number, _, _), (score, _) in zip(windows, scores, strict=True):
            totals[number] += score
        return totals

    @torch.inference_mode()
    def _loglikelihood_tokens(
        self, requests: list[Request], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each continuation, and whether it is the greedy one."""
        order = sorted(range(len(requests)), key=lambda n: -len(requests[n][1] + requests[n][2]))
        results: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for first in range(0, len(order), self.batch_size):
            batch = order[first : first + self.batch_size]
            # The last token is only predicted; what exceeds the context is cut from the left.
            texts = [
                (requests[n][1] + requests[n][2])[-(self.max_length + 1) :][:-1] for n in batch
            ]
            for number, text, logits in zip(batch, texts, self._logits(texts), strict=True):
                target = torch.tensor(requests[number][2], device=self._device)  # (T,)
                scores = logits[len(text) - len(target) : len(text)].log_softmax(dim=-1)  # (T, V)
                total = scores.gather(1, target[:, None]).sum().item()
                greedy = bool((scores.argmax(dim=-1) == target).all())
                results[number] = (total, greedy)
        return results

    def _logits(self, texts: list[list[int]]) -> Tensor:
        """Return logits (B, T, V); padding on the right does not change those before it."""
        longest = max(map(len, texts))
        padded = [text + [0] * (longest - len(text)) for text in texts]
        with eager_mode(self.model.net):
            logits: Tensor = self.model.net(torch.tensor(padded, device=self._device))[0]
        return logits.float()

    def generate_until(self, requests: list, disable_tqdm: bool = False) -> list[str]:
        """Return greedy continuations that end before the first of their stop strings."""
        answers = []
        for request in requests:
            prompt, options = request.args
            stops = options.get("until") or []
            stops = [stops] if isinstance(stops, str) else stops
            count = options.get("max_gen_toks", 256)
            text = str(self.model.generate(prompt, count, top_k=1))
            for stop in filter(None, stops):
                text = text.partition(stop)[0]
            answers.append(text)
        return answers


def _special_token(folder: Path, name: str) -> str:
    """Return a special token of a folder's tokenizer_config.json, or ""."""
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return ""
    found = json.loads(path.read_text(encoding="utf-8")).get(name) or ""
    return str(found["content"] if isinstance(found, dict) else found)


def main(args: list[str] | None = None) -> dict[str, Any]:
    """Run a command line and return the results of the harness by task.

    Raises:
        SystemExit: With code 2 after a user error, reported in one line on stderr.
    """
    escape_unencodable_output()
    parser = argparse.ArgumentParser(
        "python -m integrations.lm_eval", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="PATH", help="a .ckpt file, a folder, package:NAME")
    add("--tasks", required=True, metavar="NAMES", help="tasks, separated by commas")
    add("--include_path", metavar="FOLDER", help="folder with YAML files of further tasks")
    add("--batch_size", type=int, default=8, metavar="N", help="texts per forward pass (8)")
    add("--limit", type=int, metavar="N", help="use the first N samples of each task")
    add("--device", default="cpu", help="device of the network (cpu)")
    options = parser.parse_args(args)
    with exit_on_user_error("lm_eval"):
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager
        from lm_eval.utils import make_table

        tasks = TaskManager(include_path=options.include_path)
        names = options.tasks.split(",")
        if unknown := sorted({*names} - {*tasks.all_tasks}):
            raise UserError(f"--tasks: the harness has no task {', '.join(unknown)}.")
        model = LanguageModelLM(options.checkpoint, options.batch_size, options.device)
        results: dict[str, Any] = simple_evaluate(
            model=model, tasks=names, task_manager=tasks, limit=options.limit
        )
        print(make_table(results))
    return results["results"]


if __name__ == "__main__":
    main()
