"""Write how much the Triton kernels differ from PyTorch's attention to `differences.json`.

For each shape: the largest difference of the outputs and of the gradients of q, k and v.

A program of its own, since `TRITON_INTERPRET` takes effect only before Triton is imported.
"""

import json
import sys
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path[:0] = [str(Path(__file__).parent.parent.parent)]  # this file is run as a program

SHAPES = ((64, 64), (50, 50), (40, 70))  # T and S; a tile is 32 x 32


def main() -> None:
    from modules.scratch.flash_attention_triton import flash_attention_triton

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    differences = []
    for T, S in SHAPES:
        inputs = [torch.randn(1, 2, length, 16, device=device) for length in (T, S, S)]
        do = torch.randn(1, 2, T, 16, device=device)
        for is_causal in (False, True):
            results = []
            for function in (flash_attention_triton, F.scaled_dot_product_attention):
                q, k, v = (tensor.clone().requires_grad_() for tensor in inputs)
                output = function(q, k, v, is_causal=is_causal)
                results.append((output, *torch.autograd.grad(output, (q, k, v), do)))
            pairs = zip(*results, strict=True)
            differences.append([(ours - theirs).abs().max().item() for ours, theirs in pairs])
    Path("differences.json").write_text(json.dumps(differences))


if __name__ == "__main__":
    main()
