"""Stage 1: obtain the data of a config and write what identifies them.

    python -m pipelines.data --config configs/digits/cnn.yaml --output data.json

The file changes only if the data change, so that the later stages run again only then.
"""

import argparse
from pathlib import Path
from typing import Any

from pipelines.files import stage, write_json
from scripts.evaluation.data import open_data
from scripts.validate_data import read_splits


def main(args: list[str] | None = None) -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser("python -m pipelines.data", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    options = parser.parse_args(args)
    with stage("data"):
        data: Any = open_data(Path(), options.config)
        described = {
            name: {"samples": len(samples.keys), "checksum": samples.checksum}
            for name, samples in read_splits(data).items()
        }
        write_json(options.output, {"data": type(data).__name__, "splits": described})


if __name__ == "__main__":
    main()
