"""Train, validate, test or predict: one command, config files in, a run folder out.

    python train.py fit      --config configs/digits/cnn.yaml
    python train.py fit      --config configs/mnist/cnn.yaml --config configs/logger/wandb.yaml
    python train.py fit      --config configs/mnist/cnn.yaml --trainer.max_epochs 3
    python train.py fit      --resume runs/mnist-cnn/001
    python train.py validate --config runs/…/config.yaml --ckpt_path runs/…/checkpoints/best.ckpt
    python train.py test     --config runs/…/config.yaml --ckpt_path runs/…/checkpoints/best.ckpt
    python train.py predict  --config runs/…/config.yaml --ckpt_path runs/…/checkpoints/best.ckpt

Later configs and flags override earlier ones. `python train.py fit --help` lists every key,
configs/ holds the experiments, and configs/trainer/ and configs/logger/ what stacks on them.
"""

import sys
from pathlib import Path

HELP: tuple[list[str], ...] = ([], ["-h"], ["--help"])


def main(args: list[str] | None = None) -> Path | None:
    """Run a command line and return its run folder, see cli.main.main."""
    if (sys.argv[1:] if args is None else args) in HELP:
        print(__doc__)
        sys.exit(0)
    from cli.main import (
        main,  # lazily: importing Lightning takes seconds, and help needs none of it
    )

    return main(args)


if __name__ == "__main__":
    main()
