"""Train, validate, test or predict: `python train.py --help`.

From Python: `from train import main; main(["fit", "--config", "configs/digits/mlp.yaml"])`.
"""

from cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
