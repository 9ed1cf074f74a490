"""Compute logits of the model in `llama` with too little address space for its weights.

Writes `logits.pt`, and prints how the model loads as usual and offloaded.
"""

import resource
import sys
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parent.parent.parent)]  # this file is run as a program

from modules.nets import PretrainedCausalLM  # noqa: E402

SPACE = 120_000_000  # bytes; the model has 237 MB, a block 14 MB, a file 50 MB


def main() -> None:
    torch.set_num_threads(1)
    tokens = torch.arange(12)[None]
    with torch.inference_mode():
        PretrainedCausalLM("llama", offload=True).eval()(tokens[:, :1])  # imports what it needs
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + SPACE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            PretrainedCausalLM("llama")
            print("loaded as usual")  # noqa: T201
        except (ValueError, MemoryError, RuntimeError):
            print("too large")  # noqa: T201
        net = PretrainedCausalLM("llama", offload=True).eval()
        torch.save(net(tokens)[0], "logits.pt")


if __name__ == "__main__":
    main()
