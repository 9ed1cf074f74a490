"""Write the checkpoint of a GPT as DeepSpeed does on one CPU process: `write_zero.py STAGE FOLDER`.

Lightning runs DeepSpeed on GPUs only; this is the engine that it drives, with the same calls.
"""

import os
import socket
import sys
from pathlib import Path


def main(stage: int, folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": "cpu"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    sys.path[:0] = [str(Path(__file__).parent.parent)]
    import deepspeed
    import torch

    from datamodules import tokenization
    from modules import LanguageModel
    from modules.nets import GPT

    torch.manual_seed(0)
    tokenizer = tokenization.characters("abcdefgh ")
    size = tokenizer.get_vocab_size()
    task = LanguageModel(GPT(size, 16, 2, 2, 16), tokenizer=tokenizer.to_str())
    deepspeed.init_distributed("gloo")
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": stage},
    }
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1)
    engine, *_ = deepspeed.initialize(
        model=task, config=config, optimizer=optimizer, dist_init_required=False
    )
    tokens = torch.arange(8)[None] % size
    for _ in range(2):
        logits, _ = engine(tokens)
        engine.backward(torch.nn.functional.cross_entropy(logits[0, :-1], tokens[0, 1:]))
        engine.step()
    engine.eval()
    with torch.no_grad():
        logits, _ = engine(tokens)
    state = {"hyper_parameters": dict(task.hparams), "epoch": 0, "global_step": 2}
    engine.save_checkpoint(str(folder), client_state=state, tag="checkpoint")
    torch.save({"tokens": tokens, "logits": logits}, folder / "seen.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
