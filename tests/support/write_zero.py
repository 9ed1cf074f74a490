"""Write ZeRO checkpoints of a GPT on a CPU: `python tests/support/write_zero.py FOLDER`.

Lightning runs DeepSpeed on GPUs only, so this makes the same calls to DeepSpeed's engine. It writes
the checkpoints `zero2` and `zero3`, and `logits.pt` with the logits of both networks.
"""

import importlib
import os
import socket
import sys
from pathlib import Path

import lightning as L
import torch
from torch import Tensor

TOKENS = torch.arange(8)[None]


def train(stage: int, folder: Path) -> Tensor:
    """Train two steps, save a checkpoint, return the logits of the saved network."""
    import deepspeed

    from datamodules.text.tokenizers import character_tokenizer
    from modules import LanguageModel
    from modules.nets import GPT

    torch.manual_seed(0)
    tokenizer = character_tokenizer("abcdefgh ")
    net = GPT(tokenizer.get_vocab_size(), 16, 2, 2, 16)
    task = LanguageModel(net, tokenizer=tokenizer.to_str())
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": stage},
    }
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1)
    engine, *_ = deepspeed.initialize(
        model=task, config=config, optimizer=optimizer, dist_init_required=False
    )
    for _ in range(2):
        logits, _ = engine(TOKENS)
        engine.backward(torch.nn.functional.cross_entropy(logits[0, :-1], TOKENS[0, 1:]))
        engine.step()
    engine.eval()
    with torch.no_grad():
        logits, _ = engine(TOKENS)
    state = {"hyper_parameters": dict(task.hparams), "epoch": 0, "global_step": 2}
    state["pytorch-lightning_version"] = L.__version__
    engine.save_checkpoint(str(folder), client_state=state, tag="checkpoint")
    return logits


def main(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": "cpu"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    sys.path[:0] = [str(Path(__file__).parent.parent.parent)]
    import deepspeed

    # DeepSpeed would compile a shared-memory operator for minutes.
    importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None
    deepspeed.init_distributed("gloo")
    logits = {f"zero{stage}": train(stage, folder / f"zero{stage}") for stage in (2, 3)}
    torch.save(logits, folder / "logits.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
