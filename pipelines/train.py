"""Stage 3: train a config and copy its best checkpoint, without what differs between equal runs.

    python -m pipelines.train --config configs/digits/cnn.yaml --runs_dir runs --output model/

Further arguments are those of `train.py fit`. A run that was interrupted is resumed. The output has
the layout of a run folder: checkpoints/best.ckpt, with weights and hyper-parameters only, so that
equal trainings give equal bytes; config.yaml, results.json, the ids at trackers; and metrics.json.
"""

import argparse
import shutil
from pathlib import Path

from cli.main import main as train
from engine.errors import UserError
from engine.run.trackers import IDS_FILE
from modules.inference.export import export
from pipelines.files import read_json, stage, write_json

RECORDS = ("config.yaml", "results.json", IDS_FILE)


def main(args: list[str] | None = None) -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser("python -m pipelines.train", description=__doc__)
    parser.add_argument("--config", action="append", required=True)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    options, more = parser.parse_known_args(args)
    configs = [word for config in options.config for word in ("--config", config)]
    run = train(["fit", *configs, "--resume", "auto", *more])
    with stage("train"):
        if run is None or not (run / "checkpoints/best.ckpt").is_file():
            raise UserError("the training has no best checkpoint: the config needs validation.")
        partial = options.output.with_name(f"{options.output.name}.part")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        (checkpoint,) = export(run / "checkpoints/best.ckpt", "checkpoint", partial / "checkpoints")
        checkpoint.rename(checkpoint.with_name("best.ckpt"))
        for name in RECORDS:
            if (run / name).is_file():
                shutil.copy(run / name, partial)
        write_json(partial / "metrics.json", read_json(run / "results.json")["metrics"])
        shutil.rmtree(options.output, ignore_errors=True)
        partial.rename(options.output)


if __name__ == "__main__":
    main()
