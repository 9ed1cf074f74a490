"""Perplexity beyond the context of the training: `python -m benchmarks.context_length`.

    python -m benchmarks.context_length --write docs/context_length.md

Trains a small GPT with rotary positions on 128 characters of Python source code at a time. The last
128 characters of longer windows of the validation text are then predicted from all before them:
with the frequencies as they are, and scaled by the length of the window over 128. The characters to
predict are the same for every length.
"""

import argparse
import math
import warnings
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW

from benchmarks.table import Page, parser
from datamodules import PythonSource
from engine.process import prepare_process
from modules import LanguageModel
from modules.nets import GPT
from modules.optim import WarmupCosine

CONTEXT = 128
LENGTHS = (128, 192, 256, 512, 1024)
SHAPE: dict[str, Any] = {
    "num_layers": 4,
    "num_heads": 4,
    "dim": 128,
    "bias": False,
    "positions": "rotary",
    "norm": "rms",
    "activation": "swiglu",
}
SCALINGS = ("none", "linear", "ntk", "yarn")
READING = """
Without scaling, perplexity grows with the share of distances that did not occur in training.
Linear scaling (position interpolation) squeezes all distances, also those between neighbors, to
values that the network has not learned: it is made for fine-tuning at the new length, and without
it costs more than it helps up to four times the length. NTK-aware scaling and YaRN keep the high
frequencies, which encode close positions. Without any training, NTK-aware scaling holds to about
twice the length, and YaRN best.
`--model.net.rope_scaling` takes the same arguments as a config.json.
"""


def train(data: PythonSource, steps: int) -> GPT:
    """Return a network that was trained at a context of 128 tokens."""
    L.seed_everything(0, verbose=False)
    net = GPT(data.vocab_size, CONTEXT, **SHAPE)
    schedule = partial(WarmupCosine, warmup_steps=steps // 10, total_steps=steps)
    trainer = L.Trainer(
        devices=1,
        max_steps=steps,
        logger=False,
        limit_val_batches=0,
        gradient_clip_val=1.0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(LanguageModel(net, partial(AdamW, lr=0.002), schedule), data)
    return net.eval()


def scaled(net: GPT, length: int, kind: str) -> GPT:
    """Return the network with the same weights for a context of `length` tokens."""
    scaling = {
        "rope_type": kind,
        "factor": length / CONTEXT,
        **({"original_max_position_embeddings": CONTEXT} if kind == "yarn" else {}),
    }
    longer = GPT(net.vocab_size, length, rope_scaling=None if kind == "none" else scaling, **SHAPE)
    longer.load_state_dict(net.state_dict())
    return longer.eval()


@torch.inference_mode()
def perplexity(net: GPT, tokens: Tensor, windows: int) -> float:
    """Return the perplexity of the last 128 tokens of windows of the network's context.

    Args:
        net: The network.
        tokens: A text, at least max(LENGTHS) + 128 · windows tokens.
        windows: Number of windows.
    """
    losses = []
    for window in range(windows):
        end = max(LENGTHS) + CONTEXT * window
        inputs = tokens[None, end - net.context : end]  # (1, T)
        logits, _ = net(inputs)  # (1, T, V)
        losses.append(
            F.cross_entropy(logits[0, -CONTEXT:], tokens[end - CONTEXT + 1 : end + 1]).item()
        )
    return math.exp(sum(losses) / len(losses))


def build_parser() -> argparse.ArgumentParser:
    result = parser("context_length", (__doc__ or "").splitlines()[0])
    result.add_argument("--steps", type=int, default=1000, help="training steps (1000)")
    result.add_argument("--windows", type=int, default=64, help="evaluated windows (64)")
    return result


def main(args: list[str] | None = None) -> None:
    """Run the command line."""
    options = build_parser().parse_args(args)
    prepare_process()
    warnings.simplefilter("ignore")
    data = PythonSource(context=CONTEXT, batch_size=16)
    data.setup("fit")
    net = train(data, options.steps)
    text = data.val_tokens[: max(LENGTHS) + CONTEXT * options.windows]
    tokens = torch.from_numpy(text.astype("int64"))
    shape = ", ".join(f"{name} {value}" for name, value in SHAPE.items())
    page = Page(
        "context_length",
        "Perplexity beyond the context of the training",
        f"a GPT ({shape}), trained for {options.steps:,} steps of 16 x {CONTEXT} characters; "
        f"perplexity of {CONTEXT * options.windows:,} characters.",
        L,
    )
    page.text(READING.strip())
    page.table("length", *SCALINGS)
    for length in LENGTHS:
        found = [perplexity(scaled(net, length, k), tokens, options.windows) for k in SCALINGS]
        page.row(f"{length:,}", *(f"{value:.2f}" for value in found))
    page.write(options.write)


if __name__ == "__main__":
    main()
