"""Identify the training data of a run, in its record and at MLflow."""

import json
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger

MAX_DIGEST = 36  # characters that MLflow stores


def data_checksum(data: Any) -> str | None:
    """Return the hash of the training data, after their setup; None if there is none."""
    found = getattr(data, "fingerprint", None)
    if found is None and data is not None:
        found = data.state_dict().get("fingerprint")
    return found


def log_dataset(logger: MLFlowLogger, config: Mapping[str, Any], checksum: str) -> None:
    """Log the training data as an input of an MLflow run.

    Args:
        logger: The logger of the run.
        config: `class_path` and `init_args` of the DataModule.
        checksum: Hash of the training data.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    name = config["class_path"].rpartition(".")[2]
    source = json.dumps(config, default=str)
    dataset = Dataset(name, checksum[:MAX_DIGEST], "datamodule", source)
    logger.experiment.log_inputs(
        logger.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
    )
